package jellyfin

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample(t *testing.T, f File) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", f.Name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSetLeavesEverythingElse compares whole files: only the line of the setting
// may differ.
func TestSetLeavesEverythingElse(t *testing.T) {
	cases := map[string]struct {
		file     File
		element  string
		list     bool
		values   []string
		old, new string
	}{
		"scalar":        {Encoding, "HardwareAccelerationType", false, []string{"nvenc"}, "<HardwareAccelerationType>none</HardwareAccelerationType>", "<HardwareAccelerationType>nvenc</HardwareAccelerationType>"},
		"empty":         {Encoding, "QsvDevice", false, []string{"/dev/dri/renderD129"}, "<QsvDevice />", "<QsvDevice>/dev/dri/renderD129</QsvDevice>"},
		"emptied":       {Encoding, "VaapiDevice", false, []string{""}, "<VaapiDevice>/dev/dri/renderD128</VaapiDevice>", "<VaapiDevice />"},
		"nil":           {Encoding, "EncoderPreset", false, []string{"fast"}, `<EncoderPreset xsi:nil="true" />`, "<EncoderPreset>fast</EncoderPreset>"},
		"list":          {Encoding, "HardwareDecodingCodecs", true, []string{"av1"}, "<HardwareDecodingCodecs>\n    <string>h264</string>\n    <string>vc1</string>\n  </HardwareDecodingCodecs>", "<HardwareDecodingCodecs>\n    <string>av1</string>\n  </HardwareDecodingCodecs>"},
		"list emptied":  {Encoding, "HardwareDecodingCodecs", true, nil, "<HardwareDecodingCodecs>\n    <string>h264</string>\n    <string>vc1</string>\n  </HardwareDecodingCodecs>", "<HardwareDecodingCodecs />"},
		"escaped":       {Network, "KnownProxies", true, []string{"a&b", "<c>"}, "<KnownProxies />", "<KnownProxies>\n    <string>a&amp;b</string>\n    <string>&lt;c&gt;</string>\n  </KnownProxies>"},
		"not a nephew":  {System, "ImageExtractionTimeoutMs", false, []string{"60000"}, "<ImageExtractionTimeoutMs>0</ImageExtractionTimeoutMs>", "<ImageExtractionTimeoutMs>60000</ImageExtractionTimeoutMs>"},
		"was not there": {System, "LibraryScanFanoutConcurrency", false, []string{"2"}, "  </TrickplayOptions>\n</ServerConfiguration>", "  </TrickplayOptions>\n  <LibraryScanFanoutConcurrency>2</LibraryScanFanoutConcurrency>\n</ServerConfiguration>"},
	}
	forms := map[string]func(string) string{
		"unix":    func(s string) string { return s },
		"windows": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"bom":     func(s string) string { return string(bom) + s },
	}
	for name, c := range cases {
		for form, in := range forms {
			t.Run(name+"/"+form, func(t *testing.T) {
				text := string(sample(t, c.file))
				if strings.Count(text, c.old) != 1 {
					t.Fatalf("the sample has %d of %q", strings.Count(text, c.old), c.old)
				}
				d, err := ParseDocument([]byte(in(text)), c.file.Root)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Set(c.element, c.list, c.values...); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(in(strings.Replace(text, c.old, c.new, 1)), string(d.Bytes())); diff != "" {
					t.Error(diff)
				}
				got, ok := d.Get(c.element)
				if want := strings.Join(c.values, ","); !ok || strings.Join(got, ",") != want {
					t.Errorf("read back %q, %v", got, ok)
				}
			})
		}
	}
}

// TestNewDocument is read by a serializer like Jellyfin's.
func TestNewDocument(t *testing.T) {
	d := NewDocument("EncodingOptions")
	for _, err := range []error{d.Set("VaapiDevice", false, "/dev/x"), d.Set("HardwareDecodingCodecs", true, "h264", "hevc")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got struct {
		XMLName     xml.Name `xml:"EncodingOptions"`
		VaapiDevice string
		Codecs      []string `xml:"HardwareDecodingCodecs>string"`
	}
	if err := xml.Unmarshal(d.Bytes(), &got); err != nil || got.VaapiDevice != "/dev/x" || strings.Join(got.Codecs, ",") != "h264,hevc" {
		t.Errorf("%+v, %v in %s", got, err, d.Bytes())
	}
}

func TestRootWithoutContent(t *testing.T) {
	d, err := ParseDocument([]byte("<?xml version=\"1.0\"?>\n<NetworkConfiguration />\n"), "NetworkConfiguration")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Set("BaseUrl", false, "/jellyfin"); err != nil {
		t.Fatal(err)
	}
	if want := "<?xml version=\"1.0\"?>\n<NetworkConfiguration>\n  <BaseUrl>/jellyfin</BaseUrl>\n</NetworkConfiguration>\n"; string(d.Bytes()) != want {
		t.Errorf("%q", d.Bytes())
	}
}

func TestParseDocumentRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":      "",
		"cut":        "<EncodingOptions><VaapiDevice>",
		"other root": "<ServerConfiguration></ServerConfiguration>",
		"not XML":    "HardwareAccelerationType = none",
		"other text": `<?xml version="1.0" encoding="utf-16"?><EncodingOptions></EncodingOptions>`,
	} {
		if _, err := ParseDocument([]byte(text), "EncodingOptions"); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzSet(f *testing.F) {
	for _, file := range []File{Encoding, Network, System} {
		b, _ := os.ReadFile(filepath.Join("testdata", file.Name))
		f.Add(b, "QsvDevice", "a<b")
	}
	f.Add([]byte("<EncodingOptions/>"), "X", "")
	f.Fuzz(func(t *testing.T, text []byte, _, value string) {
		root := Encoding.Root
		if bytes.Contains(text, []byte(System.Root)) {
			root = System.Root
		}
		d, err := ParseDocument(text, root)
		if err != nil {
			return
		}
		if err := d.Set("Ours", false, value); err != nil {
			t.Skip(err) // elements that Go reads and XML forbids
		}
		got, ok := d.Get("Ours")
		if !ok || len(got) != 1 {
			t.Fatalf("%q, %v in %q", got, ok, d.Bytes())
		}
		again, err := ParseDocument(d.Bytes(), root)
		if err != nil {
			t.Fatalf("%v in %q", err, d.Bytes())
		}
		if err := again.Set("Ours", false, value); err != nil || !bytes.Equal(again.Bytes(), d.Bytes()) {
			t.Fatalf("twice is not once: %v\n%q\n%q", err, d.Bytes(), again.Bytes())
		}
	})
}
