package store

import "testing"

func TestMarks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	want := func(name, want string) {
		t.Helper()
		if got, err := s.Mark(t.Context(), name); got != want || err != nil {
			t.Errorf("%s is %q, error %v, want %q", name, got, err, want)
		}
	}
	want("servers", "")
	for _, value := range []string{"a", "b c"} {
		if err := s.SetMark(t.Context(), "servers", value); err != nil {
			t.Fatal(err)
		}
		want("servers", value)
	}
	want("others", "")
}
