"""What devices are brought to."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class Blueprint(ResourceItem, discriminator="blueprint"):
    """Collection ``blueprint``, name = the administrator's name for what devices shall have."""

    uuid = UnicodeAttribute()
    """Of MicroMDM's clients, which tell blueprints by it."""
    revision = NumberAttribute()
    """Counts its changes."""
    document = BinaryAttribute(legacy_encoding=False)
    """JSON with the fields of ``services.blueprint_content.Content``, sealed for ``blueprint/<name>``: its commands may
    hold secrets."""
    changed_at = NumberAttribute()


class CommandPlan(ResourceItem, discriminator="command_plan"):
    """Collection ``command_plan``, name = NanoCMD's name for a list of profiles and apps."""

    definition: JSONAttribute = JSONAttribute()
    """``{"profile_names": […], "manifest_urls": […], "device_configured": bool}``."""


class WorkflowEvent(ResourceItem, discriminator="workflow_event"):
    """Collection ``workflow_event``, name = NanoCMD's: what begins by itself when something happens to a device."""

    event = UnicodeAttribute()
    workflow = UnicodeAttribute()
    context = BinaryAttribute(legacy_encoding=False)
    """Sealed for ``workflow_event/<name>``: texts that go into profiles may be secret."""
    event_context = UnicodeAttribute(null=True)
    """Of ``IdleNotStartedSince``: seconds."""


class BlueprintJob(ResourceItem, discriminator="blueprint_job"):
    """Collection ``blueprint_job``, name = the job's id: blueprints on their way to many devices, page by page."""

    blueprints: JSONAttribute = JSONAttribute(null=True)
    """Names; null: whatever suits a device."""
    options: JSONAttribute = JSONAttribute()
    """``remove``: take away what is in these blueprints no more; ``again``: send also what does not differ."""
    cause = UnicodeAttribute()
    state = UnicodeAttribute()
    """``running``, ``done``."""
    step = NumberAttribute(default=0)
    """Counts the pages that are done: only who has done this one may write down the next."""
    position = UnicodeAttribute(default="")
    examined = NumberAttribute(default=0)
    begun = NumberAttribute(default=0)
    """For so many devices a plan was begun."""
    changed_at = NumberAttribute(null=True)
    """When the last page was done."""
    created_at = NumberAttribute()
    finished_at = NumberAttribute(null=True)
