package room

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"
)

func seedOf(n uint64) Seed {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
}

// TestDrawIsAPermutation: for every number of people up to 10,000, each place is somebody's, and Index finds whose. The
// network does not depend on how many they are but for its width, so that it is computed once for each width.
func TestDrawIsAPermutation(t *testing.T) {
	t.Parallel()
	const most = 10_000
	var table, inverse []uint64
	for n := uint64(1); n <= most; n++ {
		d := NewDraw(seedOf(1), nil, n)
		if size := 1 << (2 * d.half); len(table) != size {
			table, inverse = make([]uint64, size), make([]uint64, size)
			for x := range table {
				table[x], inverse[x] = d.permute(uint64(x)), d.invert(uint64(x))
			}
		}
		walk := func(table []uint64, x uint64) uint64 {
			for x = table[x]; x >= n; x = table[x] {
			}
			return x
		}

		taken := make([]bool, n)
		for index := range n {
			place := walk(table, index)
			if taken[place] || walk(inverse, place) != index {
				t.Fatalf("of %d, index %d has place %d, which is taken: %v", n, index, place, taken[place])
			}
			taken[place] = true
		}
		for _, index := range []uint64{0, n / 2, n - 1} {
			if place := d.Place(index); place != walk(table, index) || d.Index(place) != index {
				t.Fatalf("of %d, index %d has place %d, and that is of index %d", n, index, place, d.Index(place))
			}
		}
		if d.Place(n) != n || d.Index(n+7) != n+7 {
			t.Fatalf("of %d, who comes later does not stand behind in the order of coming", n)
		}
	}
}

// TestDrawIsFair: over many seeds, everybody is as often in every place, also of few, and with a beacon.
func TestDrawIsFair(t *testing.T) {
	t.Parallel()
	const seeds = 4_000
	for _, n := range []uint64{2, 3, 5, 8, 10} {
		for _, beacon := range [][]byte{nil, []byte("a beacon's value")} {
			counts := make([]float64, n*n)
			for s := range uint64(seeds) {
				d := NewDraw(seedOf(s), beacon, n)
				for index := range n {
					counts[index*n+d.Place(index)]++
				}
			}
			// Of each index: chi square with n-1 degrees of freedom is above 37 less than once in 20,000 times.
			for index := range n {
				chi, want := 0.0, float64(seeds)/float64(n)
				for _, got := range counts[index*n : (index+1)*n] {
					chi += (got - want) * (got - want) / want
				}
				if chi > 37 {
					t.Errorf("of %d, index %d is in its places %v times: chi square %.0f", n, index,
						counts[index*n:(index+1)*n], chi)
				}
			}
		}
	}
}

// TestDrawIsWhatIsPublished: places that others have computed from a published seed stay what they are.
func TestDrawIsWhatIsPublished(t *testing.T) {
	t.Parallel()
	var seed Seed
	for i := range seed {
		seed[i] = byte(i)
	}
	commitment, _ := seed.Commitment().MarshalText()
	if string(commitment) != "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd" {
		t.Errorf("commitment %s", commitment)
	}
	for _, test := range []struct {
		beacon string
		n      uint64
		want   []uint64
	}{
		{"", 10, []uint64{2, 8, 1, 6, 9, 4, 0, 3, 7, 5}},
		{"", 1_000_000, []uint64{
			354025, 927079, 507239, 258356, 462435, 531370, 630252, 909271, 379673, 293634,
		}},
		{"drand", 10, []uint64{3, 8, 4, 7, 6, 1, 5, 9, 2, 0}},
	} {
		d := NewDraw(seed, []byte(test.beacon), test.n)
		var got []uint64
		for index := range uint64(10) {
			got = append(got, d.Place(index))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("of %d with beacon %q: %v, want %v", test.n, test.beacon, got, test.want)
		}
	}
}

func TestSeedText(t *testing.T) {
	t.Parallel()
	seed := NewSeed()
	if seed == NewSeed() {
		t.Fatal("two seeds are the same")
	}
	text, err := seed.MarshalText()
	var back Seed
	if err != nil || back.UnmarshalText(text) != nil || back != seed {
		t.Errorf("%s is read as %x", text, back)
	}
	short := hex.EncodeToString(seed[:31])
	for _, bad := range []string{"", "ab", short, string(text) + "00", "zz" + string(text[2:])} {
		if back.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is taken as a seed", bad)
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	d := NewDraw(seedOf(1), nil, 1_000_000)
	for i := range uint64(b.N) {
		d.Place(i % 1_000_000)
	}
}
