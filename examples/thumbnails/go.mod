module thumbnails

go 1.22
