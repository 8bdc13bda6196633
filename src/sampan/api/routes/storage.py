"""The store of images looked at: this engine's own, Docker has no such thing."""

from __future__ import annotations

from sampan.api.request import Request
from sampan.api.responses import Answer, json_response
from sampan.api.routing import Route
from sampan.engine.facade import Engine


async def check(request: Request, engine: Engine) -> Answer:
    """POST /system/check?repair="""
    report = await engine.storage.check(mend=request.query.flag("repair"))
    problems = [
        {
            "Kind": problem.kind,
            "Name": problem.name,
            "Problem": problem.text,
            "Remedy": problem.remedy,
            "Repaired": problem.mended,
        }
        for problem in report.problems
    ]
    return json_response(
        {
            "Images": report.images,
            "Layers": report.layers,
            "Blobs": report.blobs,
            "Size": report.size,
            "Problems": problems,
        }
    )


ROUTES = (Route("POST", "/system/check", check),)
