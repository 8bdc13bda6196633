"""A page that greets."""

from bottle import route, run


@route("/")
def hello() -> str:
    return "hello from bottle\n"


if __name__ == "__main__":
    run(host="0.0.0.0", port=8000, quiet=True)
