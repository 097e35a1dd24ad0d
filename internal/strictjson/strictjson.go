// Package strictjson says whether a JSON text means the same to everybody who reads it. Readers differ in which of two
// members of one name they take, and encoding/json takes a member in whatever case its name is; so neither is taken
// here.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxDepth bounds the nesting: no text that Stampede reads is deeper than four.
	MaxDepth = 16
	// MaxNumberBytes bounds a number: 64 bits need 20 digits, and no fraction is read anywhere.
	MaxNumberBytes = 40
)

// ErrSyntax is the error of a text that is no JSON in UTF-8.
var ErrSyntax = errors.New("it is no valid JSON in UTF-8")

// Check demands of a text that it is JSON in UTF-8 without a repeated member, within the bounds, and without a member
// whose name is in another case than one of the names that the reader knows. The text of an error other than ErrSyntax
// may be shown to who sent the text; it quotes a name of it.
func Check(text []byte, names ...string) error {
	if !utf8.Valid(text) || !json.Valid(text) {
		return ErrSyntax
	}
	c := checker{json.NewDecoder(bytes.NewReader(text)), names}
	c.tokens.UseNumber()
	return c.value(0)
}

// checker goes through a text that is valid, so that reading a token of it cannot fail.
type checker struct {
	tokens *json.Decoder
	names  []string
}

func (c checker) value(depth int) error {
	switch token, _ := c.tokens.Token(); token := token.(type) {
	case json.Number:
		if len(token) > MaxNumberBytes {
			return fmt.Errorf("a number has more than %d characters", MaxNumberBytes)
		}
	case json.Delim:
		if depth == MaxDepth {
			return fmt.Errorf("values are nested more than %d deep", MaxDepth)
		}
		return c.inside(token, depth)
	}
	return nil
}

// inside checks what is in an object or a list that has begun, and takes its end.
func (c checker) inside(begin json.Delim, depth int) error {
	seen := map[string]bool{}
	for c.tokens.More() {
		if begin == '{' {
			token, _ := c.tokens.Token()
			name, _ := token.(string)
			if seen[name] {
				return fmt.Errorf("the member %.50q is there twice", name)
			}
			seen[name] = true
			if i := slices.IndexFunc(c.names, func(n string) bool {
				return strings.EqualFold(n, name)
			}); i >= 0 && c.names[i] != name {
				return fmt.Errorf("the member %.50q must be written %q", name, c.names[i])
			}
		}
		if err := c.value(depth + 1); err != nil {
			return err
		}
	}
	_, _ = c.tokens.Token()
	return nil
}
