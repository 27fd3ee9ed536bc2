package focus

// maxDepth bounds how deep a request is nested; those of clients are two deep.
// Finding out only while parsing costs a hundred times as much: a parser keeps
// account of each level.
const maxDepth = 32

// tooDeep tells whether JSON, or what begins like it, is nested deeper than
// maxDepth.
func tooDeep(text []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}
