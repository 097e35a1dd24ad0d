package password

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MinChars and MaxChars bound the length of a password, in Unicode code points.
	MinChars = 10
	MaxChars = 128
	// maxBytes bounds what is looked at at all.
	maxBytes = MaxChars * utf8.UTFMax
)

// ErrRefused is every refusal of Check. The text of each may be shown to the user and does not repeat the password.
var ErrRefused = errors.New("the password cannot be used")

var (
	errTooShort = fmt.Errorf("%w: it has fewer than %d characters", ErrRefused, MinChars)
	errTooLong  = fmt.Errorf("%w: it has more than %d characters", ErrRefused, MaxChars)
	errNotText  = fmt.Errorf("%w: it is not text in UTF-8", ErrRefused)
	errRepeated = fmt.Errorf("%w: it is one character repeated", ErrRefused)
	errCommon   = fmt.Errorf("%w: it is among those that are guessed first", ErrRefused)
)

//go:embed common.txt
var commonFile string

// common are well-known passwords in lower case. Those shorter than MinChars are refused without it.
var common = func() map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(commonFile) {
		set[strings.TrimSuffix(line, "\n")] = true
	}
	return set
}()

// Check says why a password may not be chosen, or nil. It is for passwords that are being set: at a login the stored hash
// alone decides, whatever the policy was when it was made.
//
// The rules follow NIST SP 800-63B (revision 3, section 5.1.1.2; revision 4, section 3.1.1.2): a length in code points,
// any characters, no demand for kinds of them, no shortening, and a list of passwords that are refused, of which the
// one here holds only the best known. MinChars is above the 8 of revision 3 and of passwords beside a second factor;
// revision 4 asks for 15 where the password is all there is. Unicode is not normalised, so that a letter typed in
// another composition is another password.
func Check(password string) error {
	if len(password) > maxBytes {
		return errTooLong
	}
	if !utf8.ValidString(password) {
		return errNotText
	}
	switch chars := utf8.RuneCountInString(password); {
	case chars < MinChars:
		return errTooShort
	case chars > MaxChars:
		return errTooLong
	}
	lower := strings.ToLower(password)
	first, _ := utf8.DecodeRuneInString(lower)
	switch {
	case strings.Trim(lower, string(first)) == "":
		return errRepeated
	case common[lower]:
		return errCommon
	}
	return nil
}
