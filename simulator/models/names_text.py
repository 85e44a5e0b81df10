"""Shipped text and audio models of encoders, encoder-decoders and newer hybrids, with their pages
on the Hugging Face Hub and the paper that prints their sizes.
"""

TEXT: dict[str, tuple[str, str]] = {
    "bart-base": ("facebook/bart-base", "Lewis et al. 2019, Section 5"),
    "blenderbot-400m": ("facebook/blenderbot-400M-distill", ""),
    "flan-t5-base": ("google/flan-t5-base", "Chung et al. 2022, Flan-T5"),
    "flan-t5-large": ("google/flan-t5-large", "Chung et al. 2022, Flan-T5"),
    "flan-t5-small": ("google/flan-t5-small", "Chung et al. 2022, Flan-T5"),
    "flan-t5-xl": ("google/flan-t5-xl", "Chung et al. 2022, Flan-T5"),
    "flan-t5-xxl": ("google/flan-t5-xxl", "Chung et al. 2022, Flan-T5"),
    "kimi-linear-48b-a3b": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", "Kimi team 2025, Section 5"),
    "m2m100-418m": ("facebook/m2m100_418M", "Fan et al. 2020, Section 5"),
    "mbart-large-50": ("facebook/mbart-large-50", "Tang et al. 2020, Section 3"),
    "mt5-base": ("google/mt5-base", "Xue et al. 2020, Section 3.2"),
    "mt5-large": ("google/mt5-large", "Xue et al. 2020, Section 3.2"),
    "mt5-small": ("google/mt5-small", "Xue et al. 2020, Section 3.2"),
    "mt5-xl": ("google/mt5-xl", "Xue et al. 2020, Section 3.2"),
    "mt5-xxl": ("google/mt5-xxl", "Xue et al. 2020, Section 3.2"),
    "nllb-200-1.3b": ("facebook/nllb-200-1.3B", "NLLB team 2022, Section 8"),
    "nllb-200-3.3b": ("facebook/nllb-200-3.3B", "NLLB team 2022, Section 8"),
    "nllb-200-distilled-600m": ("facebook/nllb-200-distilled-600M", "NLLB team 2022, Section 8"),
    "opus-mt-en-de": ("Helsinki-NLP/opus-mt-en-de", ""),
    "pegasus-large": ("google/pegasus-large", "Zhang et al. 2019, Section 6"),
    "plbart-base": ("uclanlp/plbart-base", "Ahmad et al. 2021, Section 2"),
    "umt5-base": ("google/umt5-base", ""),
    "umt5-small": ("google/umt5-small", ""),
    "umt5-xl": ("google/umt5-xl", ""),
    "umt5-xxl": ("google/umt5-xxl", ""),
    "zamba2-1.2b": ("Zyphra/Zamba2-1.2B", "Glorioso et al. 2024, Section 2"),
    "zamba2-2.7b": ("Zyphra/Zamba2-2.7B", "Glorioso et al. 2024, Section 2"),
    "zamba2-7b": ("Zyphra/Zamba2-7B", "Glorioso et al. 2024, Section 2"),
}
