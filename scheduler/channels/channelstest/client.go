package channelstest

import (
	"sync"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Watched returns a channel that is closed when the pods are watched. What
// changes between the list and the watch is lost by this client, unlike by an API
// server. It is to be called before the client is used.
func Watched(client *fake.Clientset) <-chan struct{} {
	watched := make(chan struct{})
	var once sync.Once
	client.PrependWatchReactor("pods", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		if err == nil {
			once.Do(func() { close(watched) })
		}
		return true, w, err
	})
	return watched
}
