package translate

import (
	"errors"
	"strings"
	"testing"
)

// What is said of a line to those who may not read it holds no value of it.
func TestWordsWithoutValues(t *testing.T) {
	for name, tc := range map[string]struct {
		argv []string
		want string
	}{
		"an option":            {[]string{"-i", "a", "-c:v", "h264_nvenc", "-secret_of", "/secret", "b.mp4"}, "-secret_of: it is not known what it means to h264_nvenc"},
		"its name is a path":   {[]string{"-i", "a", "-c:v", "h264_nvenc", "-//secret", "1", "b.mp4"}, "an option: "},
		"a filter":             {[]string{"-i", "a", "-vf", "frei0r=/secret", "-c:v", "h264_nvenc", "b.mp4"}, "-vf: something in its value has no counterpart"},
		"a device":             {[]string{"-init_hw_device", "/secret", "-i", "a", "-c:v", "h264_nvenc", "b.mp4"}, "-init_hw_device: something in its value has no counterpart"},
		"an encoder":           {[]string{"-hwaccel", "cuda", "-i", "a", "-c:v", "/secret", "b.mp4"}, "-c: the encoder has no counterpart"},
		"nothing it could not": {[]string{"-i", "a", "-c:v", "h264_nvenc", "b.mp4", "/secret"}, "it has 2 outputs"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Translate(tc.argv, QSV, nil)
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok || !strings.HasPrefix(refused.Words, tc.want) || strings.Contains(refused.Words, "/") {
				t.Errorf("got %q of %v", refused.Words, err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	argv := strings.Fields("-hwaccel cuda -hwaccel_output_format cuda -i /media/-a.mkv -c:v h264_nvenc -preset p4 -c:a copy b.mp4")
	_, changes, err := Translate(argv, QSV, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "-init_hw_device -filter_hw_device -hwaccel -hwaccel_output_format -c -preset -vf"
	if got := strings.Join(Options(argv, changes), " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	graph := Change{Arg: 3, From: "scale_cuda", To: "subtitles=f=/media/My -secret film.mkv"}
	if got := Options([]string{"-i", "a", "-vf", "scale_cuda", "b"}, []Change{graph}); len(got) != 1 || got[0] != "-vf" {
		t.Errorf("got %s", got)
	}
}
