package focus

import "go.mau.fi/util/dbutil"

// Store keeps sessions, grants and participants. LiveKit knows rooms and
// identities by hashes only; these rows are the one way back to a room and a
// person. All times are milliseconds since 1970. It is safe for concurrent use.
type Store struct {
	db *dbutil.Database
	// synced is the same database, by connections whose commits even a power cut
	// does not take back: a revocation must not be forgotten, while whose grant is
	// forgotten asks for another.
	synced *dbutil.Database
	grants *batch[*writtenGrant]
	// written is since when whose rows were not trimmed.
	written grantCounts
	// sessions are those whose row was written lately.
	sessions *recent
}

// NewStore returns the store over a database that is on the latest schema, and
// that is reached by two kinds of connections; they may be the same.
func NewStore(db, synced *dbutil.Database) *Store {
	s := &Store{db: db, synced: synced, sessions: newRecent(sessionKept)}
	s.grants = newBatch(s.writeGrants)
	return s
}
