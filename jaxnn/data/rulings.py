"""Ruled and squared paper: long, thin, straight lines are found and taken out of the ink.

A digit crosses its rulings, so a line's pixels go only where the ink is no thicker than the line.
"""

import numpy as np

STEEPEST = 0.2  # of a ruling against the picture's edge: 11 degrees
SLOPES = 41  # tried from one side to the other
THICKEST = 0.025  # of the picture's longer side
REACH = 0.5  # of the picture's side: a shorter line is no ruling
EDGE = 0.06  # of the side: a line that comes so near both ends crosses the picture
MANY = 3  # lines side by side are rulings although they end before the picture does
REST = 0.04  # of the ink: where less would stay, the lines are what was drawn
SMALLEST = 100  # pixels: in smaller pictures a ruling cannot be told from a stroke


def without_rulings(mask: np.ndarray) -> np.ndarray:
    """Ink bool [H, W] without the rulings that cross it; as it was where little else would stay."""
    if min(mask.shape) < SMALLEST:
        return mask
    left = _without_rows(_without_rows(mask).T).T
    return left if left.sum() >= REST * mask.sum() else mask


def _without_rows(mask: np.ndarray) -> np.ndarray:
    """Without the lines that run across, more or less."""
    height, width = mask.shape
    tall = _runs_down(mask)
    y, x = np.nonzero(mask & (tall <= max(3, THICKEST * max(mask.shape))))
    if len(y) < REACH * width:
        return mask
    run = tall[y, x]
    share = 1 / run  # so that a column of a line counts once, however thick the line is
    ends = x < EDGE * width, x >= (1 - EDGE) * width
    margin = int(STEEPEST * width) + 2
    gone, crossing, most = np.zeros(len(y), bool), False, 0
    for slope in np.linspace(-STEEPEST, STEEPEST, SLOPES):
        row = np.rint(y - slope * (x - width / 2)).astype(np.intp) + margin
        length = _with_neighbours(np.bincount(row, share, height + 2 * margin))
        lines = length >= REACH * width
        if not lines[row].any():  # none, or only between the two rows that hold the ink
            continue
        reach_both = [
            _with_neighbours(np.bincount(row[end], minlength=len(lines))) > 0 for end in ends
        ]
        crossing |= bool((lines & reach_both[0] & reach_both[1]).any())
        most = max(most, int(np.count_nonzero(np.diff(lines.astype(int)) == 1)))
        on_line = lines[row]
        thickness = np.median(run[on_line])
        gone |= on_line & (run <= 1.5 * thickness + 1)
    if not crossing and most < MANY:
        return mask
    left = mask.copy()
    left[y[gone], x[gone]] = False
    return left


def _with_neighbours(counts: np.ndarray) -> np.ndarray:
    """Each row's count with those above and below: a slanted line lies between two rows."""
    padded = np.pad(counts, 1)
    return padded[:-2] + counts + padded[2:]


def _runs_down(mask: np.ndarray) -> np.ndarray:
    """How many ink pixels lie above one another where each pixel is: int [H, W], 0 off the ink."""
    height, width = mask.shape
    columns = np.zeros((width, height + 2), np.int8)
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns.ravel())
    starts, ends = np.flatnonzero(steps == 1) + 1, np.flatnonzero(steps == -1) + 1
    runs = np.zeros(columns.size, np.intp)
    runs[columns.ravel() > 0] = np.repeat(ends - starts, ends - starts)
    return runs.reshape(columns.shape)[:, 1:-1].T
