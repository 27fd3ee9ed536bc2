package federation

// Through makes connections to an address, host:port before it is looked up,
// go to another port. Tests cannot listen at 443 and 8448.
func (o *Options) Through(f func(address string) string) { o.through = f }

// Dialled is told each address that is connected to, whether or not anybody is
// there.
func (o *Options) Dialled(f func(address string)) { o.dialled = f }

// Subject is what a userinfo answer of a server says.
var Subject = subject

// ValidServerName is the grammar of server names.
var ValidServerName = validServerName

// ClientBase is where a document for clients says that the API is.
var ClientBase = clientBase
