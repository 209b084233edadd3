import itertools

from saccade.reports.placement import Box, place_labels

FRAME = Box(0.0, 0.0, 1000.0, 600.0)


def test_labels_cover_neither_each_other_nor_points_and_stay_inside():
    points = [(500.0 + 12 * step, 300.0 + 5 * (step % 3)) for step in range(10)] + [(2.0, 2.0), (998.0, 598.0)]
    signs = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    boxes = place_labels(points, [(90.0, 14.0)] * len(points), signs, FRAME)
    for one, other in itertools.combinations(boxes, 2):
        assert one.overlap(other) == 0
    for box in boxes:
        assert all(box.overlap(sign) == 0 for sign in signs)
        assert box.overlap(FRAME) == box.area


def test_a_lonely_label_stands_to_the_right_of_its_point():
    (box,) = place_labels([(100.0, 100.0)], [(50.0, 10.0)], [], FRAME)
    assert box.left > 100
    assert box.middle[1] == 100
    assert box.distance(100.0, 100.0) < 15


def test_boxes_know_their_overlap_and_distance():
    box = Box(0.0, 0.0, 10.0, 10.0)
    assert box.overlap(Box(5.0, 5.0, 20.0, 20.0)) == 25
    assert box.overlap(Box(10.0, 0.0, 20.0, 10.0)) == 0
    assert (box.distance(5.0, 5.0), box.distance(13.0, 14.0)) == (0, 5)
