package strictjson

import (
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`{"email":"a","x":[{"email":1},{"email":2}],"y":null}`: "",
		`1`:                          "",
		`[]`:                         "",
		`{"e":{},"E":{}}`:            "",
		``:                           ErrSyntax.Error(),
		`{} {}`:                      ErrSyntax.Error(),
		"{\"a\":\"\xff\"}":           ErrSyntax.Error(),
		`{"email":1,"email":1}`:      `"email" is there twice`,
		`{"email":1,"\u0065mail":1}`: `"email" is there twice`,
		`[{"x":{"y":1,"y":2}}]`:      `"y" is there twice`,
		`{"Email":1}`:                `"Email" must be written "email"`,
		`{"x":[{"EMAIL":1}]}`:        `"EMAIL" must be written "email"`,
		`{"toKen":1}`:                `must be written "token"`, // with the sign of Kelvin
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth):     "",
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1): "deep",
		strings.Repeat("9", MaxNumberBytes):                               "",
		strings.Repeat("9", MaxNumberBytes+1):                             "a number has more than",
	} {
		err := Check([]byte(text), "email", "token")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
		if errors.Is(err, ErrSyntax) != (want == ErrSyntax.Error()) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}
