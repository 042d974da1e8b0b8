"""For admins: who takes part, links to enter by, tokens for programs, a pause, a name taken out."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from plaudit.feedback.people import Annotator
from plaudit.records.errors import UserError
from plaudit.studio.problems import Json, Refused
from plaudit.studio.sessions import Admin, Here, Studio, Viewer
from plaudit.studio.wire import Language, Strict

router = APIRouter(tags=["people"])

Role = Literal["admin", "annotator", "viewer"]


class NewPerson(Strict):
    name: str = Field(min_length=1, max_length=200)
    role: Role = "annotator"
    lang: Language = "en"


class Invitation(Strict):
    name: str = Field(min_length=1, max_length=200)
    role: Role = "annotator"
    days: float = Field(default=7, gt=0, le=365)


class Pause(Strict):
    paused: bool


class Person(BaseModel):
    name: str
    role: Role
    lang: str
    paused: bool
    created: float


class Everybody(BaseModel):
    people: list[Person]


class Link(BaseModel):
    link: str = Field(description="/join#TOKEN: good for one entry; it is shown this once")


class Token(BaseModel):
    token: str = Field(description="for Authorization: Bearer; it is shown this once")


@router.get("/people", response_model=Everybody)
def people(studio: Here, _: Viewer) -> Response:
    """Everybody who has an account, in the order in which they came."""
    return Json({"people": [_person(one) for one in studio.store.people.annotators()]})


@router.post("/people", response_model=Person, status_code=201)
def add_person(new: NewPerson, studio: Here, _: Admin) -> Response:
    """Makes an account; its owner enters by an invitation."""
    if any(one.name == new.name for one in studio.store.people.annotators()):
        raise Refused(409, "there is somebody of that name already: invite them")
    made = studio.store.people.add(new.name, role=new.role, lang=new.lang)
    return Json(_person(made), 201)


@router.post("/invitations", response_model=Link, status_code=201)
def invite(wanted: Invitation, studio: Here, _: Admin) -> Response:
    """A link that lets a person in once; it makes the account where there is none."""
    token = studio.store.people.invite(wanted.name, role=wanted.role, days=wanted.days)
    studio.sessions.forget()
    return Json({"link": f"/join#{token}"}, 201)


@router.post("/people/{name:path}/pause", response_model=Person)
def pause(name: str, said: Pause, studio: Here, me: Admin) -> Response:
    """Gives a person no more work, or again; what they said stays."""
    _known(studio, name)
    if name == me.name and said.paused:
        raise Refused(409, "nobody pauses themselves")
    studio.store.people.pause(name, said.paused)
    studio.sessions.forget()
    return Json(_person(_known(studio, name)))


@router.post("/people/{name:path}/erase", response_model=Everybody)
def erase(name: str, studio: Here, me: Admin) -> Response:
    """Puts a pseudonym in the place of a name and ends its sessions; the votes stay."""
    _known(studio, name)
    if name == me.name:
        raise Refused(409, "nobody erases themselves: another admin can")
    studio.store.people.erase(name)
    studio.sessions.forget()
    return people(studio, me)


@router.post("/people/{name:path}/token", response_model=Token, status_code=201)
def token(name: str, studio: Here, _: Admin) -> Response:
    """A token with which a program may do what this person may."""
    _known(studio, name)
    return Json({"token": studio.store.people.bearer(name)}, 201)


def _known(studio: Studio, name: str) -> Annotator:
    try:
        return studio.store.people.named(name)
    except UserError as error:
        raise Refused(404, str(error)) from None


def _person(one: Annotator) -> dict[str, Any]:
    return {
        "name": one.name,
        "role": one.role,
        "lang": one.lang,
        "paused": one.paused,
        "created": one.created,
    }
