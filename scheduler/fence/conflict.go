package fence

import (
	"path"
	"strings"
)

// Conflict tells whether two output keys stand for files that both would write:
//
//   - They are equal, but for how a number is padded: %d and %03d.
//   - One is a stem and the other a name that a segmenting muxer makes of it: for
//     /c/x these are /c/x.m3u8, /c/x12.ts, /c/x-1.mp4 and the stem /c/x1, whose
//     segment 0 is the stem's segment 10. /c/x-part.mp4 and /c/x/y are not.
//   - One is a pattern, as /c/%08d.jpg, and the other a name it makes.
//
// A key says not whether it is a stem; one without an extension is taken for one.
// A playlist with a dot in its name, a.b.m3u8, thus only conflicts with its like.
func Conflict(a, b string) bool { return conflict(plain(a), plain(b)) }

func conflict(a, b string) bool {
	return a == b || makes(a, b) || makes(b, a)
}

// number is what plain makes of every number of a pattern.
const number = "%d"

// plain writes the numbers of a pattern in one way.
func plain(key string) string {
	if !strings.Contains(key, "%") {
		return key
	}
	var b strings.Builder
	for len(key) > 0 {
		if n := verb(key); n > 0 {
			b.WriteString(number)
			key = key[n:]
			continue
		}
		b.WriteByte(key[0])
		key = key[1:]
	}
	return b.String()
}

// verb returns the length of the %d, %3d or %03d that s begins with, or 0.
func verb(s string) int {
	if s == "" || s[0] != '%' {
		return 0
	}
	i := 1
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	if i < len(s) && s[i] == 'd' {
		return i + 1
	}
	return 0
}

// makes tells whether a key that stands for several files stands for name too.
func makes(key, name string) bool {
	if before, after, pattern := strings.Cut(key, number); pattern {
		rest, ok := strings.CutPrefix(name, before)
		if !ok {
			return false
		}
		rest, ok = strings.CutSuffix(rest, after)
		return ok && rest != "" && digits(rest) == len(rest)
	}
	if path.Ext(key) != "" {
		return false
	}
	rest, ok := strings.CutPrefix(name, key)
	return ok && numbered(rest)
}

// numbered tells whether a muxer would append rest to a stem: an extension, or a
// number with or without a dash before and an extension after it.
func numbered(rest string) bool {
	if strings.HasPrefix(rest, ".") {
		return !strings.Contains(rest, "/")
	}
	if rest != "" && (rest[0] == '-' || rest[0] == '_') {
		rest = rest[1:]
	}
	n := digits(rest)
	return n > 0 && (n == len(rest) || rest[n] == '.' && !strings.Contains(rest[n:], "/"))
}

// digits is how much of the beginning of s is numbers.
func digits(s string) int {
	for i := 0; ; {
		switch {
		case i < len(s) && s[i] >= '0' && s[i] <= '9':
			i++
		case strings.HasPrefix(s[i:], number):
			i += len(number)
		default:
			return i
		}
	}
}
