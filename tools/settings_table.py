"""Prints the settings as the Markdown table of docs/settings.md."""

from pydantic_core import PydanticUndefined

from rheostat_server.settings import Settings


def table() -> str:
    rows = ["| variable | default | what it does |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, PydanticUndefined) or field.default == [] else f"`{field.default}`"
        rows.append(f"| `RHEOSTAT_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
