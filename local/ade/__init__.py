"""A strict simulator of Apple's device enrollment service (ADE), and of the portal that assigns devices to servers.

It is a program of its own, in two halves that share one process::

    python -m local.ade [--port N] [--control-port N] [--state FILE]

It prints one line of JSON, ``{"url", "control"}``, and serves until SIGTERM or SIGINT. With a file it goes on where the
run before stopped.

**The service's side** (plain HTTP on this machine, else as ``https://mdmenrollment.apple.com``) wants OAuth 1.0a for a
session (:mod:`local.ade.oauth`), the session's token and a User-Agent with every request, and answers what the
request's ``X-Server-Protocol-Version`` knows of. The endpoints are in :mod:`local.ade.service`.

**The control interface** (HTTP on 127.0.0.1, JSON) is the portal where people work, the shop where devices are bought,
and how tests look inside and make trouble.

``POST /servers`` ``{"name", "certificate": "<PEM>", "days"?: 365}``
    Makes a server in the portal for whose certificate this is: 201 with its token, encrypted to that certificate, as
    the file that the portal lets people download (``.p7m``). A name that exists renews its token: the former is no good
    any more, the consumer key stays. ``days`` of 0 or less: a token that has ended.
``GET /servers/<name>``
    ``{"name", "server_uuid", "devices", "profiles", "sessions", "fetches", "account_driven_url"}``.
``POST /servers/<name>/terms`` ``{"signed": bool}``
    Whether the organization has accepted the latest terms.
``POST /servers/<name>/devices`` ``{"serial_numbers": [...]} or {"count": n}, and fields of a device``
    Buys devices, or moves them there from another server: 201 ``{"serial_numbers"}`` (at most 1,000 of them).
``POST /servers/<name>/devices/modify`` ``{"serial_numbers", …}``, ``POST /servers/<name>/devices/remove``
    Changes what is known of devices (``mdm_migration_deadline``, say), or takes them away from the server.
``GET /devices/<serial number>``
    All that is known of a device: ``server``, its record, ``profile`` (or null), ``activation_lock`` (or null).
``POST /devices/<serial number>/activate``
    A device out of its box asks Apple what to do: 200 with its profile, 404 when it has none. The profile counts as
    pushed from then on.
``PUT /behaviour``, ``GET /behaviour``
    Trouble to make: the fields of :class:`local.ade.behaviour.Behaviour`; what is not named is normal.
``POST /sessions/expire``, ``POST /cursors/expire``
    All that were given out until now have come to their end.
``GET /requests?after=0``
    What was asked and answered, oldest first, with running numbers (the last 20,000).
``GET /violations``
    What a client must not do, although Apple answers it. Empty when all is well.
``POST /reset``
    Forgets requests, violations and trouble; servers and devices stay.
"""
