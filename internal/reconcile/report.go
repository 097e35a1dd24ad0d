package reconcile

import (
	"slices"

	"stampede/internal/order"
)

// Finding is a difference.
type Finding struct {
	Cause Cause `json:"cause"`
	// Orders are the orders concerned, of settings and restocks the number of those that were missed, of what buyers
	// have the number of buyers.
	Orders int `json:"count"`
	// Units are the units that are reserved in vain, missed by a restock, or available though they must not be; the
	// last may be negative.
	Units int64 `json:"units"`
	// Repaired reports whether it was repaired, and not only found.
	Repaired bool `json:"repaired"`
}

// Report says how a product stands after it was reconciled.
type Report struct {
	ProductID order.ProductID `json:"product_id"`
	// Bucket is the number of the bucket, of a product that is split.
	Bucket int `json:"bucket,omitempty"`
	// Loaded reports whether Redis has the product; if not there is nothing to compare.
	Loaded     bool  `json:"redis_loaded"`
	Available  int64 `json:"redis_available"`
	Reserved   int64 `json:"redis_reserved"`
	InTransfer int64 `json:"redis_lent"`
	Stock      int64 `json:"mysql_stock"`
	// Busy reports whether the units could not be compared, since orders were on their way. With a pause they can be.
	Busy     bool      `json:"busy"`
	Findings []Finding `json:"findings"`
}

// LostCommits reports whether MySQL has lost commits of the product, and nobody has accepted it.
func (r *Report) LostCommits() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Cause == LostCommits && !f.Repaired })
}

// add puts a finding into the report, together with those of the same cause.
func (r *Report) add(f Finding) {
	for i := range r.Findings {
		if known := &r.Findings[i]; known.Cause == f.Cause {
			if known.Repaired || f.Repaired { // what was found before was repaired, so this is more of it
				known.Orders, known.Units = known.Orders+f.Orders, known.Units+f.Units
			}
			known.Repaired = f.Repaired
			return
		}
	}
	r.Findings = append(r.Findings, f)
}
