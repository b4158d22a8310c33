"""Which view of a study comes first."""

import pytest

from utils.data.dicom import in_order, rank


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (["LATERAL", "LL", ""], ["", "LATERAL", "LL"]),
        (["LATERAL", None], [None, "LATERAL"]),
        (["LL", "AP AXIAL"], ["AP AXIAL", "LL"]),
        (["XTABLE LATERAL", "UNKNOWN", "LAO"], ["UNKNOWN", "XTABLE LATERAL", "LAO"]),
        (["left lateral", "", "postero-anterior"], ["postero-anterior", "", "left lateral"]),
        (["left anterior oblique", "antero-posterior oblique", "AP LLD"], None),
        (["RL", "pa "], ["pa ", "RL"]),
        # with a frontal view the others stay as they come
        (["LATERAL", "", "PA"], ["PA", "LATERAL", ""]),
        (["", "LL", "AP", "AP AXIAL", "PA"], ["AP", "PA", "", "LL", "AP AXIAL"]),
        ([], []),
    ],
)
def test_the_frontal_view_comes_first_and_else_the_likeliest(positions, expected):
    shown = in_order(positions, rank)
    assert shown == (expected if expected is not None else [positions[-1], *positions[:-1]])
