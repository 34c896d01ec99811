package supervisor

import "slices"

// keptNames is how many session ids a worker remembers: more than can have been
// started within the time in which a shim may still ask for one.
const keptNames = 4096

// recent is a set that forgets its oldest members.
type recent struct {
	members map[string]bool
	order   []string
	most    int
}

func newRecent(most int) recent { return recent{members: map[string]bool{}, most: most} }

// add makes id the newest member.
func (r *recent) add(id string) {
	r.remove(id)
	r.members[id] = true
	r.order = append(r.order, id)
	if len(r.order) > r.most {
		delete(r.members, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) remove(id string) {
	if r.members[id] {
		delete(r.members, id)
		r.order = slices.DeleteFunc(r.order, func(o string) bool { return o == id })
	}
}

func (r *recent) has(id string) bool { return r.members[id] }
