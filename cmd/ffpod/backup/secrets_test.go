package backup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlank(t *testing.T) {
	for name, c := range map[string]struct {
		kind, text, want string
		names            []string
	}{
		"the provider's": {"xml",
			`<?xml version="1.0" encoding="utf-8"?><D><DatabaseType>PLUGIN_PROVIDER</DatabaseType><C><ConnectionString>Password=s3cret;Host=db</ConnectionString></C></D>`,
			`<?xml version="1.0" encoding="utf-8"?><D><DatabaseType>PLUGIN_PROVIDER</DatabaseType><C><ConnectionString></ConnectionString></C></D>`,
			[]string{"ConnectionString"}},
		"options of key and value": {"xml",
			`<O><CustomDatabaseOption><Key>password</Key><Value>s3cret</Value></CustomDatabaseOption><CustomDatabaseOption><Key>Host</Key><Value>db</Value></CustomDatabaseOption></O>`,
			`<O><CustomDatabaseOption><Key>password</Key><Value></Value></CustomDatabaseOption><CustomDatabaseOption><Key>Host</Key><Value>db</Value></CustomDatabaseOption></O>`,
			[]string{"password"}},
		"live TV": {"xml",
			`<L><Username>ann</Username><Password>5baa61</Password><Url>http://ann:pw@tv.example/m3u?x=1</Url></L>`,
			`<L><Username>ann</Username><Password></Password><Url>http://ann@tv.example/m3u?x=1</Url></L>`,
			[]string{"Password", "a password in an address"}},
		"what only sounds alike": {"xml",
			`<P><EnablePassword>true</EnablePassword><PasswordResetProviderId>Default</PasswordResetProviderId><ApiKey/><Token></Token><Tokens>5</Tokens></P>`,
			`<P><EnablePassword>true</EnablePassword><PasswordResetProviderId>Default</PasswordResetProviderId><ApiKey/><Token></Token><Tokens>5</Tokens></P>`,
			nil},
		"nested":     {"xml", `<P><ClientSecret><string>a</string><string>b</string></ClientSecret><x>1</x></P>`, `<P><ClientSecret></ClientSecret><x>1</x></P>`, []string{"ClientSecret"}},
		"a BOM":      {"xml", "\xef\xbb\xbf<P><ApiKey>k</ApiKey></P>\r\n", "\xef\xbb\xbf<P><ApiKey></ApiKey></P>\r\n", []string{"ApiKey"}},
		"CDATA":      {"xml", `<P><ApiKey><![CDATA[a<b]]></ApiKey></P>`, `<P><ApiKey></ApiKey></P>`, []string{"ApiKey"}},
		"json":       {"json", `{"a": "1", "apiKey" : "k\"x", "list": [{"password":"p"}], "token": {"a": "b", "n": 1}, "empty_token": ""}`, `{"a": "1", "apiKey" : "", "list": [{"password":""}], "token": {"a": "", "n": 1}, "empty_token": ""}`, []string{"apiKey", "password", "token"}},
		"json's BOM": {"json", "\xef\xbb\xbf{\"secret\": \"x\"}", "\xef\xbb\xbf{\"secret\": \"\"}", []string{"secret"}},
		"a list":     {"json", `{"tokens": ["kept"], "token": ["a", "b"]}`, `{"tokens": ["kept"], "token": ["", ""]}`, []string{"token"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, names, err := blank(c.kind, []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Join(names, ",") != strings.Join(c.names, ",") {
				t.Errorf("names %q, want %q", names, c.names)
			}
		})
	}
}

func TestBlankRefuses(t *testing.T) {
	for name, c := range map[string]struct{ kind, text string }{
		"half a file":    {"xml", `<P><Password>x`},
		"crossed":        {"xml", `<P><Password>x</P></Password>`},
		"an attribute":   {"xml", `<P><Server Password="x"/></P>`},
		"half an object": {"json", `{"password": "x`},
		"another code":   {"xml", `<?xml version="1.0" encoding="utf-16"?><P/>`},
	} {
		if out, _, err := blank(c.kind, []byte(c.text)); err == nil {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// Whatever the file is, what is blanked stays well-formed and has no secret
// left.
func FuzzBlank(f *testing.F) {
	f.Add(`<P><Password>x</Password></P>`)
	f.Add(`{"password": "x", "a": [1, {"token": "y"}]}`)
	f.Add(`<P><Key>token</Key><Value>v</Value></P>`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []string{"xml", "json"} {
			once, _, err := blank(kind, []byte(text))
			if err != nil {
				continue
			}
			twice, names, err := blank(kind, once)
			if err != nil {
				t.Fatalf("%s: %q became %q: %v", kind, text, once, err)
			}
			if len(names) > 0 || string(twice) != string(once) {
				t.Fatalf("%s: %q became %q, which still has %q", kind, text, once, names)
			}
		}
	})
}
