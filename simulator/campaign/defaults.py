"""What holds of a whole run where the user says nothing else; each use is listed as assumed."""

SAVE_RATE = 1.2e9
"""Bytes per second that a node of eight devices writes to shared storage: 2.3 TB in 40 s from 48
nodes (BLOOM's chronicles); 2 TB/s from 2048 nodes are 1.0e9 (grattafiori2024, section 3.3.1)."""

DETECTION_S = 300.0
"""Seconds until a failed job has ended: 5 minutes after a process was killed (BLOOM's chronicles,
2022-05-18); half of PyTorch's timeout of collectives, 10 minutes."""

RESTART_S = 300.0
"""Seconds from there until the next step, beside reading the checkpoint: with detection 10 minutes,
as from one attempt to the next in lablup2026 (median 11, quartiles 10 and 11)."""

RESTART_ONE_S = 60.0
"""The same of a job on one node, which no scheduler and no network has to join: assumed."""

SLOW = 0.015
"""Mean length of steps of a long run on several nodes beyond the best ones: 1 to 2 % with the time
of the day (grattafiori2024, section 3.3.4); BLOOM's were 105.2 and 106.4 s in March and April."""
