"""All figures: plain data in, one PNG file out, written atomically. The only place with matplotlib."""

from self_supervised_3d_tasks.plots.confusion import confusion_matrix
from self_supervised_3d_tasks.plots.curves import learning_rate, loss_curves, score_over_epochs, score_over_fraction
from self_supervised_3d_tasks.plots.embedding import embedding
from self_supervised_3d_tasks.plots.findings import finding_areas
from self_supervised_3d_tasks.plots.masks import overlay
from self_supervised_3d_tasks.plots.preview import pretext_preview
from self_supervised_3d_tasks.plots.restoration import restorations
from self_supervised_3d_tasks.plots.similarity import similarity_histogram
