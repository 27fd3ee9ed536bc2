package federation

import "passerelle/focus/matrixrtc"

// FullAccess is the policy of lk-jwt-service: the users of some servers may do
// everything, and those of all others may join, to see and hear.
type FullAccess struct {
	everybody bool
	names     map[string]bool
}

// NewFullAccess returns the policy that lists those names, or with everybody
// all there are.
func NewFullAccess(everybody bool, names []string) *FullAccess {
	f := &FullAccess{everybody: everybody, names: map[string]bool{}}
	for _, name := range names {
		f.names[name] = true
	}
	return f
}

// Access is what the users of a server may do. Names are compared as they are
// written: a star or a question mark stands for nothing else. Whoever asks
// proves to be of the server spelled so.
func (f *FullAccess) Access(serverName string) matrixrtc.Access {
	if f.everybody || f.names[serverName] {
		return matrixrtc.Access{Join: true, Publish: matrixrtc.AllSources, Create: true}
	}
	return matrixrtc.Access{Join: true}
}
