import numpy as np
import pytest

from saccade.reports.placement import distance_to, overlaps, place_labels

FRAME = np.array([0.0, 0.0, 1000.0, 600.0])


def test_labels_cover_neither_each_other_nor_points_and_stay_inside():
    points = np.array(
        [(500.0 + 12 * step, 300.0 + 5 * (step % 3)) for step in range(10)] + [(2.0, 2.0), (998.0, 598.0)]
    )
    signs = np.concatenate([points - 8, points + 8], axis=-1)
    boxes = place_labels(points, np.full((12, 2), (90.0, 14.0)), signs, FRAME)
    assert overlaps(boxes, boxes) == pytest.approx(np.diag(np.full(12, 90.0 * 14.0)))
    assert (overlaps(boxes, signs) == 0).all()
    assert overlaps(boxes, FRAME[None]) == pytest.approx(90.0 * 14.0)


def test_a_lonely_label_stands_to_the_right_of_its_point():
    point = np.array([100.0, 100.0])
    (box,) = place_labels(point[None], np.array([[50.0, 10.0]]), np.empty((0, 4)), FRAME)
    assert box.tolist() == pytest.approx([109, 95, 159, 105])
    assert distance_to(box, point) == pytest.approx(9)


def test_boxes_know_their_overlap_and_distance():
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 20.0, 20.0], [10.0, 0.0, 20.0, 10.0]])
    assert overlaps(boxes[:1], boxes).tolist() == [[100, 25, 0]]
    assert distance_to(boxes[0], np.array([5.0, 5.0])) == 0
    assert distance_to(boxes[0], np.array([13.0, 14.0])) == 5
