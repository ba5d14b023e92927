"""The migrations, one in each file. `down_revision` is the revision of the previous one."""
