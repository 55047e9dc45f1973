"""Tables as Markdown."""

from helpers.show.tables import mean_sd, table


def test_a_table_has_its_caption_its_header_and_a_line_for_each_row():
    found = table(["", "dB"], [("ours", 30), ("theirs", "29.5")], "Twelve dogs").data
    assert found == "Twelve dogs\n\n|  | dB |\n| --- | ---: |\n| ours | 30 |\n| theirs | 29.5 |"


def test_a_bar_in_a_cell_is_no_column():
    assert "| a\\|b |" in table(["x"], [("a|b",)]).data


def test_mean_and_spread_have_as_many_digits_as_asked_for():
    found = {"mean": 1234.567, "sd": 0.0234}
    assert mean_sd(found) == "1,234.57 ± 0.02"
    assert mean_sd(found, 0) == "1,235 ± 0"
