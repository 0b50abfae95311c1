"""Django's ORM as people use it. Arguments: URL, a table's name, a mark for read statements."""
import sys
from urllib.parse import urlparse

import django
from django.conf import settings

url, table, mark = sys.argv[1:4]
where = urlparse(url)
settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=[__name__],
    ROOT_URLCONF=__name__,
    SECRET_KEY="x",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": where.path[1:],
            "USER": where.username,
            "PASSWORD": where.password,
            "HOST": where.hostname,
            "PORT": where.port,
            "ATOMIC_REQUESTS": True,
            "CONN_MAX_AGE": 60,
            "TIME_ZONE": "Asia/Tokyo",
        }
    },
    USE_TZ=True,
)
django.setup()

from django.db import IntegrityError, connection, models, transaction  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402


class Author(models.Model):
    name = models.TextField(unique=True)
    facts = models.JSONField(default=dict)
    born = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = table


class Book(models.Model):
    title = models.TextField()
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")

    class Meta:
        db_table = table + "book"


def write(request, fails):
    Author.objects.create(name=f"request {fails}")
    assert Author.objects.filter(name=f"request {fails}").exists()
    if fails:
        raise ValueError("rolled back with its request")
    return HttpResponse(str(Author.objects.count()))


urlpatterns = [path("write/<int:fails>", write)]

with connection.schema_editor() as schema:
    schema.create_model(Author)
    schema.create_model(Book)
for i in range(20):
    author = Author.objects.create(name=f"a{i}", facts={"i": i})
    assert author.pk == i + 1
Book.objects.bulk_create([Book(title=f"b{i}", author_id=i % 20 + 1) for i in range(200)], batch_size=50)
author, made = Author.objects.get_or_create(name="a3", defaults={"facts": {}})
assert not made and author.facts == {"i": 3}
author, made = Author.objects.update_or_create(name="new", defaults={"facts": {"new": True}})
assert made
with transaction.atomic():
    Author.objects.filter(pk=1).update(name="first")
    try:
        with transaction.atomic():
            Author.objects.create(name="first")
        raise SystemExit("two of one name")
    except IntegrityError:
        pass
    locked = Author.objects.select_for_update().get(pk=1)
    assert locked.name == "first"
    done = []
    transaction.on_commit(lambda: done.append(True))
assert done
# Server-side cursors, within a transaction and (WITH HOLD) without one.
with transaction.atomic():
    assert sum(1 for _ in Book.objects.order_by("pk").iterator(chunk_size=7)) == 200
assert sum(1 for _ in Book.objects.order_by("pk").iterator(chunk_size=7)) == 200
browser = Client(raise_request_exception=False)
assert browser.get("/write/1").status_code == 500
assert browser.get("/write/0").content == b"22"
assert not Author.objects.filter(name="request 1").exists()

print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    found = Author.objects.extra(where=[f"/* {mark} */ true"]).prefetch_related("books").get(name="a5")
    assert len(found.books.all()) == 10
    assert timezone.is_aware(found.born)
counted = Author.objects.annotate(n=models.Count("books")).filter(n__gt=0).aggregate(models.Sum("n"))
assert counted == {"n__sum": 200}
with connection.cursor() as cursor:
    cursor.execute("show timezone")
    assert cursor.fetchone() == ("Asia/Tokyo",)
assert table in connection.introspection.table_names()
Author.objects.all().delete()
assert Book.objects.count() == 0
