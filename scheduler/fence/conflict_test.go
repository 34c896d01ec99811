package fence

import (
	"path"
	"testing"
)

func TestConflict(t *testing.T) {
	tests := map[string]struct {
		a, b string
		want bool
	}{
		"the same":                         {"/c/x", "/c/x", true},
		"a stem and its playlist":          {"/c/x", "/c/x.m3u8", true},
		"a stem and its segment":           {"/c/x", "/c/x12.ts", true},
		"a stem and its init segment":      {"/c/x", "/c/x-1.mp4", true},
		"a stem and its temporary file":    {"/c/x", "/c/x.m3u8.tmp", true},
		"a stem and its pattern":           {"/c/x", "/c/x%d.ts", true},
		"a stem and a stem among segments": {"/c/x", "/c/x1", true},
		"stems that begin alike":           {"/c/x", "/c/xy", false},
		"a stem and a longer name":         {"/c/x", "/c/x-part.mp4", false},
		"a stem and a dated name":          {"/c/x", "/c/x2024 show.mkv", false},
		"a stem and a directory":           {"/c/x", "/c/x/y.mkv", false},
		"a stem and a numbered directory":  {"/c/x", "/c/x1/y.mkv", false},
		"a stem and a dotted directory":    {"/c/x", "/c/x.d/y", false},
		"a file and its side-car":          {"/c/x.mkv", "/c/x.mkv.srt", false},
		"files of one name":                {"/c/x.mkv", "/c/x.srt", false},
		"numbered files":                   {"/c/1.srt", "/c/2.srt", false},
		"numbers padded differently":       {"/c/%d.jpg", "/c/%08d.jpg", true},
		"a pattern and its file":           {"/c/y%d.ts", "/c/y07.ts", true},
		"a pattern and no file of it":      {"/c/y%d.ts", "/c/y.ts", false},
		"a pattern and another extension":  {"/c/y%d.ts", "/c/y7.mp4", false},
		"patterns that meet":               {"/c/y%d.ts", "/c/y2%d.ts", true},
		"a verb that is none":              {"/c/%Y.ts", "/c/7.ts", false},
		"other directories":                {"/c/x", "/d/x", false},
		"the empty key":                    {"", "/c/x", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if Conflict(test.a, test.b) != test.want || Conflict(test.b, test.a) != test.want {
				t.Errorf("Conflict(%q, %q) = %v, %v the other way, want %v", test.a, test.b, Conflict(test.a, test.b), Conflict(test.b, test.a), test.want)
			}
		})
	}
}

// FuzzConflict: every key conflicts with itself, both ways alike, and only within
// its directory: the table searches no further.
func FuzzConflict(f *testing.F) {
	for _, pair := range [][2]string{{"/c/x", "/c/x1.ts"}, {"/c/%08d.jpg", "/c/1.jpg"}, {"/c/%d%d", "/c/%%d"}, {"", "%"}, {"/c/x", "/c/x.d/e"}, {"/%d/", "/1/"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !Conflict(a, a) {
			t.Errorf("%q does not conflict with itself", a)
		}
		got := Conflict(a, b)
		if got != Conflict(b, a) {
			t.Errorf("%q and %q conflict one way only", a, b)
		}
		if clean(a) && clean(b) && got && path.Dir(a) != path.Dir(b) {
			t.Errorf("%q and %q conflict across directories", a, b)
		}
	})
}

// clean: as the keys of a command are, and no number within a directory's name.
func clean(key string) bool {
	return path.IsAbs(key) && path.Clean(key) == key && plain(path.Dir(key)) == path.Dir(key) && digits(path.Dir(key)) == 0 && verbFree(path.Dir(key))
}

func verbFree(s string) bool {
	for i := range s {
		if verb(s[i:]) > 0 {
			return false
		}
	}
	return true
}
