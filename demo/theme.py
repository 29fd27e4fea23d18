"""How the page looks: one accent, system fonts, light and dark. The rest is in style.css."""

import gradio as gr

_ACCENT = gr.themes.Color(
    *("#eef8f6", "#d5eeea", "#abdcd5", "#7cc7be", "#4bada3", "#1f8a80", "#0f6f67", "#0c5a54", "#0b4844", "#093a37"),
    "#052523",
    name="lagoon",
)
_INK = gr.themes.Color(
    *("#f7f8f8", "#eef0f0", "#dde1e1", "#c3c9ca", "#939c9e", "#667073", "#4d5658", "#384042", "#232a2c", "#171d1f"),
    "#0f1416",
    name="ink",
)


def theme() -> gr.themes.Base:
    """Buttons and links have a contrast of at least 4.5 to their ground in both modes."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
    return gr.themes.Base(
        primary_hue=_ACCENT,
        secondary_hue=_ACCENT,
        neutral_hue=_INK,
        radius_size="lg",
        spacing_size="md",
        font=sans,
        font_mono=["ui-monospace", "Cascadia Code", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="#fbfcfb",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_100",
        block_title_text_weight="600",
        block_shadow="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_300",
        button_primary_background_fill_hover_dark="*primary_200",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="*primary_950",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_hover="*primary_50",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        button_border_width="1px",
        button_large_text_weight="600",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        slider_color="*primary_600",
        slider_color_dark="*primary_300",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="*neutral_800",
    )
