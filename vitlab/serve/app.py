"""The API and the page as one application.

POST /api/predict   a picture -> the likeliest classes, or every label that fits
POST /api/explain   a picture -> a map of what speaks for one of them
GET  /api/model     the model, its classes and its numbers
GET  /health/live   the process answers
GET  /health/ready  the model answers
GET  /  /docs       pages for people; /openapi.json for programs
"""

from collections.abc import Callable, Coroutine, Iterable
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from vitlab import __version__
from vitlab.serve.explaining import METHODS
from vitlab.serve.guard import Guard
from vitlab.serve.intake import Gone, picture, while_connected
from vitlab.serve.limits import TYPES
from vitlab.serve.service import Refusal, Service

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Everything that is served from a file: address to its name in `page` and its type."""

ABOUT = """One trained image classifier, asked over HTTP. A picture is the body of a request, as it
is, with its own content type. It is answered and forgotten. Every error is an object with
one field, error, which says in words what is wrong."""


class Guess(BaseModel):
    """A class, or a label, and how likely it is."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(alias="class", description="name of the class")
    probability: float = Field(ge=0, le=1, description="after temperature scaling")
    threshold: float | None = Field(
        default=None,
        description="probability from which on a picture is given this label; missing where a "
        "picture has one class",
    )


class Answer(BaseModel):
    """What the model makes of a picture."""

    top: list[Guess] = Field(description="likeliest first")
    certainty: Literal["sure", "fairly sure", "unsure"] | None = Field(
        default=None,
        description="sure above 0.9, fairly sure above 0.7, unsure otherwise; of a model of one "
        "class a picture",
    )
    labels: list[Guess] | None = Field(
        default=None,
        description="every label that is as likely as its threshold, likeliest first; of a model "
        "of several labels a picture",
    )
    unknown: bool | None = Field(
        default=None,
        description="true if the picture is unlike anything the model was trained on; missing "
        "where that was not measured",
    )
    set: list[str] | None = Field(
        default=None,
        description="classes, likeliest first, among which the true one is with the probability "
        "that `coverage` asks for; may be empty",
    )


class Map(Answer):
    """Where the model finds what speaks for a class."""

    model_config = ConfigDict(populate_by_name=True)

    method: str
    name: str = Field(alias="class", description="the class that is explained")
    map: list[list[float]] = Field(
        description="rows of numbers from 0 to 1 that evenly cover what the model sees"
    )


class Method(BaseModel):
    """A way to make a map."""

    name: str
    shows: str = Field(description="what it shows, in a sentence")
    faithful: bool | None = Field(
        description="whether its maps passed the test of `vitlab explain`; null if not tested"
    )


class Upload(BaseModel):
    """What a picture may be."""

    bytes: int
    pixels: int = Field(description="of a JPEG; PNG and WebP may have a quarter of them")
    types: list[str]


class Model(BaseModel):
    """The model that answers."""

    name: str
    classes: list[str]
    image_size: tuple[int, int] = Field(description="height and width that it sees, in pixels")
    channels: int
    fit: Literal["stretch", "pad", "crop"] = Field(
        description="how a picture of another shape comes to that size"
    )
    engine: str = Field(description="what computes: onnx or torch")
    calibrated: bool = Field(description="whether the temperature was measured")
    has_sets: bool = Field(description="whether sets of classes were calibrated, for `coverage`")
    temperature: float
    methods: list[Method] = Field(
        description="ways to make a map, faithful ones first; empty until they are loaded"
    )
    explains: bool = Field(description="whether there are maps at all")
    notes: list[str]
    card: dict[str, Any] = Field(description="what was measured; null for what was not")
    limits: Upload


class Health(BaseModel):
    """How the service is."""

    status: Literal["live", "ready"]


class Error(BaseModel):
    """Why there is no answer."""

    error: str


BODY = {
    "requestBody": {
        "required": True,
        "description": "the file of one picture",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES},
    }
}

LATER = {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}}

WORDS = {
    400: "Not a request for this service",
    404: "Not here",
    408: "The picture came in too slowly",
    413: "The picture has too many bytes",
    415: "Another content type",
    422: "Not a picture that can be read, or a parameter that does not fit",
    429: "Too many at once",
    503: "Starting, stopping or overloaded",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of errors."""
    return {
        status: {"model": Error, "description": WORDS[status]}
        | (LATER if status in (429, 503) else {})
        for status in (400, *statuses)
    }


UNTOLD: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI would tell OpenTelemetry of every request where a program has set that up."""


def build_app(service: Service, hosts: Iterable[str], root: str = "") -> Guard:
    """The application: all routes, guarded.

    Args:
        service: what answers.
        hosts: names that requests may give this service.
        root: path before all addresses where a proxy has put the service, /vit or nothing.
    """
    app = FastAPI(
        title="vitlab",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        root_path=root,
        telemetry=UNTOLD,
        exception_handlers={
            Refusal: refused,
            RequestValidationError: unfit,
            HTTPException: unknown,
            Exception: failed,
        },
    )
    upload = errors(408, 413, 415, 422, 429, 503)

    @app.post("/api/predict", response_model=Answer, responses=upload, openapi_extra=BODY)
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=1000, description="classes to name")] = 3,
        coverage: Annotated[
            int | None,
            Query(ge=50, le=99, description="percent of pictures whose class is to be in the set"),
        ] = None,
    ) -> Response:
        """Classify a picture."""
        return await answered(request, service, lambda file: service.predict(file, top, coverage))

    @app.post(
        "/api/explain", response_model=Map, responses=upload | errors(404), openapi_extra=BODY
    )
    async def explain(
        request: Request,
        method: Annotated[
            Literal[tuple(METHODS)],  # type: ignore[valid-type]
            Query(description="way to make the map; GET /api/model lists those of this model"),
        ],
        name: Annotated[
            str | None,
            Query(alias="class", max_length=1000, description="default the likeliest"),
        ] = None,
    ) -> Response:
        """Find where in a picture the model sees what speaks for a class."""
        return await answered(
            request, service, lambda file: service.explain(file, method, name), explains=True
        )

    @app.get("/api/model", response_model=Model, responses=errors(503))
    async def model() -> Response:
        """Describe the model: its classes, and the numbers measured of it."""
        return JSONResponse(service.describe())

    @app.get("/health/live", response_model=Health, responses=errors())
    async def live() -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "live"})

    @app.get("/health/ready", response_model=Health, responses=errors(503))
    async def ready() -> Response:
        """Say whether the model answers: not while it is being loaded or stopped."""
        if service.state != "ready":
            raise Refusal(503, service.state, service.limits.retry_seconds)
        return JSONResponse({"status": "ready"})

    for address, (name, kind) in PAGES.items():
        app.add_route(address, static(name, kind, root), include_in_schema=False)
    return Guard(app, hosts, root)


async def answered(
    request: Request,
    service: Service,
    ask: Callable[[bytes], Coroutine[Any, Any, dict[str, Any]]],
    explains: bool = False,
) -> Response:
    """The response to a picture."""
    try:
        with service.inside(explains=explains):
            async with picture(request, service) as file:
                return JSONResponse(await while_connected(request, ask(file)))
    except Gone:
        return Response(status_code=400)  # which nobody will see


def static(name: str, kind: str, root: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """What serves one file of the page, read once; no request ever names a file.

    Its addresses are relative, so that they hold below any path. A root that is known goes before
    them: they hold then at /vit as they do at /vit/.
    """
    content = files("vitlab.serve").joinpath("page", name).read_bytes()
    if root:
        content = content.replace(b'="./', f'="{root}/'.encode())

    async def page(request: Request) -> Response:
        return Response(content, media_type=kind)

    return page


async def refused(request: Request, error: Exception) -> Response:
    """A refusal as a response."""
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def unfit(request: Request, error: Exception) -> Response:
    """Parameters that do not fit, named without what was sent."""
    assert isinstance(error, RequestValidationError)
    words = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse({"error": "; ".join(words)}, 422)


async def failed(request: Request, error: Exception) -> Response:
    """Something that should not have happened; the terminal is shown it, the client is not."""
    return JSONResponse({"error": "something went wrong here"}, 500)


async def unknown(request: Request, error: Exception) -> Response:
    """An address or a verb that is not here."""
    assert isinstance(error, HTTPException)
    docs = request.scope["root_path"] + "/docs"
    words = {404: f"there is nothing here: see {docs}", 405: "this address takes another method"}
    text = words.get(error.status_code, "this request does not fit")
    return JSONResponse({"error": text}, error.status_code, error.headers)
