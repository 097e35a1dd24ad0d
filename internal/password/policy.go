package password

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"golang.org/x/text/unicode/norm"
)

const (
	// MinChars and MaxChars bound the length of a password, in Unicode code points.
	MinChars = 10
	MaxChars = 128
	// minScore is zxcvbn's for at least 10^8 guesses: too many for who is slowed down.
	minScore = 3
	// wellKnown is not in zxcvbn's lists, and in everybody's head.
	wellKnown = "correct horse battery staple"
	// maxEstimated is how many characters are estimated, for the work grows faster than the length: for the worst that
	// was found, 64 characters took 250 ms, and all 128 longer still.
	maxEstimated = 32
	// maxBytes bounds what is looked at at all.
	maxBytes = MaxChars * utf8.UTFMax
)

// ErrRefused is every refusal of Check. The text of each may be shown to the user and does not repeat the password.
var ErrRefused = errors.New("the password cannot be used")

var (
	errTooShort  = fmt.Errorf("%w: it has fewer than %d characters", ErrRefused, MinChars)
	errTooLong   = fmt.Errorf("%w: it has more than %d characters", ErrRefused, MaxChars)
	errNotText   = fmt.Errorf("%w: it is not text in UTF-8", ErrRefused)
	errRepeated  = fmt.Errorf("%w: it is one character repeated", ErrRefused)
	errGuessable = fmt.Errorf("%w: it is among those that are guessed first; take several words that do not go together", ErrRefused)
	errAddress   = fmt.Errorf("%w: it is your e-mail address", ErrRefused)
)

// Normalize returns the form of a password that is hashed, so that it does not depend on how a keyboard composes
// letters: that of the OpaqueString profile (RFC 8265, section 4.2), NFC with plain spaces. What else that profile
// refuses is let through.
func Normalize(password string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, password))
}

// Check says why a password may not be chosen by a user with an e-mail address and a name, or nil. It is for passwords
// that are being set: at a login the stored hash alone decides, whatever the policy was when it was made.
//
// The rules follow NIST SP 800-63B (revision 3, section 5.1.1.2; revision 4, section 3.1.1.2): a length in code points,
// any characters, no demand for kinds of them, no shortening, and no password that is guessed early, as zxcvbn
// estimates it from lists of words, names, dates and keyboards. MinChars is above the 8 of revision 3 and of passwords
// beside a second factor; revision 4 asks for 15 where the password is all there is.
func Check(password, email, name string) error {
	if len(password) > maxBytes {
		return errTooLong
	}
	if !utf8.ValidString(password) {
		return errNotText
	}
	password = Normalize(password)
	switch chars := utf8.RuneCountInString(password); {
	case chars < MinChars:
		return errTooShort
	case chars > MaxChars:
		return errTooLong
	}
	local, _, _ := strings.Cut(email, "@")
	lower := strings.ToLower(password)
	first, _ := utf8.DecodeRuneInString(lower)
	switch {
	case strings.Trim(lower, string(first)) == "":
		return errRepeated
	case strings.EqualFold(password, email):
		return errAddress
	case zxcvbn.PasswordStrength(start(password), []string{email, local, name, wellKnown}).Score < minScore:
		return errGuessable
	}
	return nil
}

// start is as much of a password as is estimated. What is strong does not become weak by what follows.
func start(password string) string {
	chars := 0
	for i := range password {
		if chars == maxEstimated {
			return password[:i]
		}
		chars++
	}
	return password
}
