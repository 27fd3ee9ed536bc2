-- v3 -> v4 (compatible with v1+): No index on when grants expire
-- Every token moved its row in it, which was a third of what the row cost, and
-- only the sweep, a few times an hour, ever looked.
DROP INDEX call_grant_expires_idx;
