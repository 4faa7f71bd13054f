-- Workers may log in as a role that owns nothing (docs/security.md). Retention makes and drops tables, which only their
-- owner can: it runs as the owner, with the search_path that it has had, and for those alone who were granted it.
ALTER FUNCTION prune(json, integer) SECURITY DEFINER;
REVOKE EXECUTE ON FUNCTION prune(json, integer) FROM PUBLIC;
