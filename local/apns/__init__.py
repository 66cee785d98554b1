"""A strict simulator of Apple's push notification service, and of the portal that issues its certificates.

It is a program of its own, in two halves that share one process::

    python -m local.apns serve --state DIR [--port N] [--control-port N] [--ready-file FILE]
    python -m local.apns certificate --state DIR --topic com.apple.mgmt.External.<uuid> > push.pem

**The provider's side** (HTTP/2 over TLS, as ``https://api.push.apple.com``) asks for a client certificate of its own
portal, whose UID is the topic, and holds each request to Apple's rules: see :mod:`local.apns.rules`.

**The control interface** (HTTP/1.1 on 127.0.0.1, JSON) is how simulated devices register and wait for their pushes,
and how tests look inside and make trouble. It stands for nothing of Apple's.

``POST /devices`` ``{"token": "<hex>", "topic": "com.apple.mgmt…", "magic": "<PushMagic>"}``
    What a device does with APNs before it sends a TokenUpdate: 201. The same token again replaces what was known of
    it (a new magic, another topic) and makes it valid again.
``GET /devices/<token>/wait?timeout=25``
    Waits until a push arrives: 200 ``{"apns_id", "received_at", "pushes"}``, or 204 after ``timeout`` seconds, or 404.
    As APNs does, the last push is kept for a device that is not waiting (until its ``apns-expiration``; one of 0 is
    not kept) and several are one. A push with another magic than the device's wakes nobody.
``GET /devices``, ``GET /devices/<token>``
    What is known: ``token``, ``topic``, ``magic``, ``pushes`` (accepted so far), ``unregistered_at`` (or null).
``POST /devices/<token>/unregister`` ``{"timestamp"?: <ms>, "reason"?: "Unregistered" | "ExpiredToken"}``
    The device is gone: pushes are answered 410 with the reason and the timestamp.
``DELETE /devices/<token>``
    The token was never one: pushes are answered 400 BadDeviceToken.

``POST /certificates`` ``{"topic": "com.apple.mgmt…", "days"?: 365, "foreign"?: false}``
    The portal: 201 with the PEM of a certificate and its key. ``foreign``: signed by a CA that APNs does not know;
    ``days`` at most 0: expired.
``POST /certificates/revoke`` ``{"topic": …}``
    Every certificate issued for the topic until now is answered 403 BadCertificate.
``GET /trust-anchor``
    PEM of the CA of the provider's side's own certificate.

``GET /pushes?after=0``
    What was asked and answered, oldest first, with running numbers (the last 20,000).
``GET /violations``
    What no answer of APNs says but a device would stumble over, or what a provider must not do: a payload that is not
    exactly ``{"mdm": <magic>}``, more streams than allowed, a breach of HTTP/2. Empty when all is well.
``GET /status``
    ``{"url", "connections", "connections_made", "pushes", "peak_streams"}``.
``PUT /behaviour``, ``GET /behaviour``
    Trouble to make: the fields of :class:`local.apns.behaviour.Behaviour`; what is not named is normal.
``POST /connections/goaway``, ``POST /connections/cut``, ``POST /connections/freeze``
    All connections at once: told to go away (what was taken is still answered), cut without a word, or left open
    without ever being read again.
``POST /reset``
    Forgets pushes, violations and trouble; devices and certificates stay.
"""
