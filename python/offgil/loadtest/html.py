from offgil.loadtest.report import Report


def page(report: Report) -> str:
    return ""
