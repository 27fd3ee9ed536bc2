package main

// text is what the demonstration says.
type text struct {
	building, starting, ready, whatToDo, stopping string
	calling, runNumber, pictureBack               string
	button, killed, screenshots, passed           string
	interrupted, failed                           string
}

var texts = map[string]text{
	"fr": {
		building: "Compilation de Passerelle (quelques secondes ; quelques minutes la première fois) …",
		starting: "Démarrage des deux ministères : deux Synapse, deux Passerelle, deux SFU …",
		ready:    "Prêt, en %s. Ouvrez chaque lien dans une fenêtre de navigateur :",
		whatToDo: "Appuyez sur « Rejoindre l’appel » dans les deux fenêtres : chacun voit et entend l’autre,\n" +
			"chacun par le serveur de son ministère. Ctrl-C arrête et efface tout.",
		stopping:    "Arrêt et nettoyage …",
		calling:     "Deux navigateurs s’appellent …",
		runNumber:   "\nAppel %d sur %d",
		pictureBack: "SFU tués : %d ; l’image de l’autre revient en %s (médiane), %s (95 %%), %s au pire.",
		button:      "Départ par le bouton vu par l’autre ministère en %s (objectif : moins de %s).",
		killed:      "Navigateur tué : LiveKit le constate après %s, l’autre ministère l’apprend %s plus tard (objectif : moins de %s).",
		screenshots: "Captures d’écran :",
		passed:      "Tout s’est passé comme prévu, en %s.",
		interrupted: "Interrompu ; tout est arrêté et effacé.",
		failed:      "Échec :",
	},
	"en": {
		building: "Building Passerelle (seconds; minutes the first time) …",
		starting: "Starting the two ministries: two Synapses, two Passerelles, two SFUs …",
		ready:    "Ready, in %s. Open each link in a browser window:",
		whatToDo: "Press “Join the call” in both windows: each sees and hears the other, each through the\n" +
			"server of their own ministry. Ctrl-C stops and removes everything.",
		stopping:    "Stopping and cleaning up …",
		calling:     "Two browsers call each other …",
		runNumber:   "\nCall %d of %d",
		pictureBack: "SFUs killed: %d; the other's picture is back after %s (median), %s (95 %%), %s at worst.",
		button:      "The button's leave was seen by the other ministry after %s (the aim: less than %s).",
		killed:      "The killed browser was given up by LiveKit after %s, and the other ministry saw it leave %s later (the aim: less than %s).",
		screenshots: "Screenshots:",
		passed:      "Everything was as it should be, in %s.",
		interrupted: "Interrupted; everything is stopped and removed.",
		failed:      "Failed:",
	},
}
