package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"unicode"
)

// What others wrote cannot do anything to the terminal of an operator, nor look like a line of ctl's own.
func TestDeadLettersAreEscaped(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	was := os.Stdout
	os.Stdout = w
	printLetters([]*letter{{ID: "m1", Reason: "\x1b[2Jbroken\nm2\t1s\u202e"}})
	os.Stdout = was
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := `\x1b[2Jbroken\nm2\t1s\u202e`; !strings.Contains(string(out), want) {
		t.Errorf("%q does not show %s", out, want)
	}
	if strings.ContainsFunc(string(out), func(c rune) bool { return c != '\n' && !unicode.IsGraphic(c) }) {
		t.Errorf("%q reaches the terminal", out)
	}
}
