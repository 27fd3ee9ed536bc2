package matrixrtc

// maxDepth bounds how deep a message of clients or homeservers is nested; those
// that there are, are two or three deep. Finding out only while parsing costs a
// hundred times as much, and while sorting it to check a signature more: both keep
// account of each level.
const maxDepth = 32

// TooDeep tells whether JSON, or what begins like it, is nested deeper than 32
// levels. It goes before the parser.
func TooDeep(text []byte) bool {
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
