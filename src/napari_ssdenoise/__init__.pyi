from napari_ssdenoise.algorithms import get_algorithm as get_algorithm
from napari_ssdenoise.algorithms import list_algorithms as list_algorithms
from napari_ssdenoise.algorithms.blindspot import BlindSpot as BlindSpot
from napari_ssdenoise.algorithms.interpolation import Interpolation as Interpolation
from napari_ssdenoise.algorithms.mzsr import MetaSuperResolution as MetaSuperResolution
from napari_ssdenoise.algorithms.neighbor2neighbor import Neighbor2Neighbor as Neighbor2Neighbor
from napari_ssdenoise.algorithms.noise2noise import Noise2Noise as Noise2Noise
from napari_ssdenoise.algorithms.noise2void import Noise2Void as Noise2Void
from napari_ssdenoise.algorithms.zs_n2n import ZeroShotNoise2Noise as ZeroShotNoise2Noise
from napari_ssdenoise.algorithms.zssr import ZeroShotSuperResolution as ZeroShotSuperResolution
from napari_ssdenoise.diagnosis import Diagnosis as Diagnosis
from napari_ssdenoise.diagnosis import diagnose as diagnose
from napari_ssdenoise.engine.distributed import Scheduler as Scheduler
from napari_ssdenoise.engine.trainer import Trainer as Trainer
from napari_ssdenoise.engine.trainer import TrainStep as TrainStep
from napari_ssdenoise.engine.trainer import train as train
from napari_ssdenoise.metrics import psnr as psnr
from napari_ssdenoise.metrics import ssim as ssim
from napari_ssdenoise.model import TrainedModel as TrainedModel
from napari_ssdenoise.quality import assess as assess
from napari_ssdenoise.samples import load_sample as load_sample
from napari_ssdenoise.superres import Upscaler as Upscaler
from napari_ssdenoise.superres import upscale as upscale
from napari_ssdenoise.volume import Volume as Volume
from napari_ssdenoise.volume import open_volume as open_volume

__version__: str
