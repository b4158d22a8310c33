"""The places that publish IU X-Ray, in the order in which they are asked, and what each has not."""

from typing import NamedTuple

from .downloads import drive_address


class Source(NamedTuple):
    """A place that publishes IU X-Ray; `lacks` says what it has not, where it cannot serve alone."""

    name: str
    url: str
    archive: str
    lacks: str = ""


SOURCES = (
    Source("the quiz's archive", drive_address("1cdcsyJtW8G2YYptlujzDAU-fMXOpew5K"), "iu_xray_quiz.archive"),
    Source(
        "R2Gen's archive",
        drive_address("1c0BXEuDy8Cmm2jfN0YYGkQxFZd2ZIoLg"),
        "iu_xray_r2gen.archive",
        "findings by region, and views beyond two a study",
    ),
    # By the collection's list of projections the first of a study's files is frontal in 2,618 of 2,955.
    Source(
        "Open-i's archive",
        "https://openi.nlm.nih.gov/imgs/collections/NLMCXR_png.tgz",
        "iu_xray_openi.archive",
        "findings by region, splits, and the order of views (the first is frontal in 89 % of studies)",
    ),
)
