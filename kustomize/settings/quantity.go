package settings

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Quantity is an amount as Kubernetes writes it, kept as it was written, since it
// is kustomize that copies it: 20Gi, "4", 250m, or a plain number.
type Quantity string

// UnmarshalJSON takes a string or a number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		*q = Quantity(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("%s is no amount: %w", b, err)
	}
	*q = Quantity(n.String())
	return nil
}

func (q Quantity) parse() (resource.Quantity, error) { return resource.ParseQuantity(string(q)) }
