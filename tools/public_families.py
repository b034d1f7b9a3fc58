"""What a person decided about public models: which files are forms of one model, what it is called, what counts."""

from __future__ import annotations

from typing import NamedTuple

IMAGENET = "ImageNet (ILSVRC 2012) validation"
COCO = "COCO 2017 validation"
COCO_REPORTED = "COCO, as the source reports it; likely at an overlap of a half"

ZOO = "onnx/models"
CV = "opencv/opencv_zoo"


class Described(NamedTuple):
    """One family as a person describes it.

    Attributes:
        name: as clients will name it.
        title: for people.
        task: what goes in and what comes out.
        source: the repository that has the files.
        files: a pattern that the whole file name matches.
        target_ms: how long one sample may take to be useful.
        quality: which reported figure counts: (its key, our metric, the data set), if any.
    """

    name: str
    title: str
    task: str
    source: str
    files: str
    target_ms: float
    quality: tuple[str, str, str] | None = None


TOP1 = ("Top-1 accuracy (%)", "top1", IMAGENET)
TOP1_CV = ("Top-1 Accuracy", "top1", IMAGENET)
CLASSIFY = "Says which of the 1,000 classes of ImageNet a picture shows."
DETECT = "Finds and names the things in a picture."
STYLE = "Paints a picture in the manner of another one."


def _classifier(name: str, title: str, files: str, quality: tuple[str, str, str] | None = TOP1) -> Described:
    return Described(name, title, CLASSIFY, ZOO, files, 250.0, quality)


FAMILIES = (
    # Pictures: what is it?
    _classifier("alexnet", "AlexNet", r"bvlcalexnet-.*"),
    _classifier("caffenet", "CaffeNet", r"caffenet-.*"),
    _classifier("densenet-121", "DenseNet-121", r"densenet-\d.*"),
    _classifier("efficientnet-lite4", "EfficientNet-Lite4", r"efficientnet-lite4-.*"),
    _classifier("googlenet", "GoogLeNet", r"googlenet-.*"),
    _classifier("inception-v1", "Inception v1", r"inception-v1-.*"),
    _classifier("inception-v2", "Inception v2", r"inception-v2-.*", None),
    _classifier("mobilenet-v2", "MobileNetV2", r"mobilenetv2-1\d.*"),
    _classifier("mobilenet-v2-gluon", "MobileNetV2, as GluonCV trained it", r"mobilenetv2-7.*"),
    _classifier("resnet18-v1", "ResNet-18 v1", r"resnet18-v1-.*"),
    _classifier("resnet18-v2", "ResNet-18 v2", r"resnet18-v2-.*"),
    _classifier("resnet34-v1", "ResNet-34 v1", r"resnet34-v1-.*"),
    _classifier("resnet34-v2", "ResNet-34 v2", r"resnet34-v2-.*"),
    _classifier("resnet50-v1", "ResNet-50 v1", r"resnet50-v1-.*"),
    _classifier("resnet50-v2", "ResNet-50 v2", r"resnet50-v2-.*"),
    _classifier("resnet50-caffe2", "ResNet-50 v1, as Caffe2 had it", r"resnet50-caffe2-.*", None),
    _classifier("resnet101-v1", "ResNet-101 v1", r"resnet101-v1-.*"),
    _classifier("resnet101-v2", "ResNet-101 v2", r"resnet101-v2-.*"),
    _classifier("resnet152-v1", "ResNet-152 v1", r"resnet152-v1-.*"),
    _classifier("resnet152-v2", "ResNet-152 v2", r"resnet152-v2-.*"),
    _classifier("shufflenet-v1", "ShuffleNet v1", r"shufflenet-\d\.onnx", None),
    _classifier("shufflenet-v2", "ShuffleNet v2", r"shufflenet-v2-.*", ("Top-1 error", "top1-error", IMAGENET)),
    _classifier("squeezenet-1.0", "SqueezeNet 1.0", r"squeezenet1\.0-.*"),
    _classifier("squeezenet-1.1", "SqueezeNet 1.1", r"squeezenet1\.1-.*"),
    _classifier("vgg16", "VGG-16", r"vgg16-\d.*"),
    _classifier("vgg16-bn", "VGG-16 with batch normalisation", r"vgg16-bn-.*"),
    _classifier("vgg19", "VGG-19", r"vgg19-\d.*"),
    _classifier("vgg19-bn", "VGG-19 with batch normalisation", r"vgg19-bn-.*"),
    _classifier("vgg19-caffe2", "VGG-19, as Caffe2 had it", r"vgg19-caffe2-.*", None),
    _classifier("zfnet-512", "ZFNet-512", r"zfnet512-.*"),
    Described(
        "rcnn-ilsvrc13",
        "R-CNN for ILSVRC 2013",
        "Says which of 200 things a part of a picture shows.",
        ZOO,
        r"rcnn-ilsvrc13-.*",
        250.0,
    ),
    Described(
        "mnist",
        "MNIST",
        "Says which digit a picture of 28 by 28 pixels shows.",
        ZOO,
        r"mnist-.*",
        20.0,
        ("TOP-1 ERROR", "top1-error", "MNIST test"),
    ),
    Described(
        "mobilenet-v1-cv",
        "MobileNetV1 of the OpenCV zoo",
        CLASSIFY,
        CV,
        r"image_classification_mobilenetv1_.*",
        250.0,
        TOP1_CV,
    ),
    Described(
        "mobilenet-v2-cv",
        "MobileNetV2 of the OpenCV zoo",
        CLASSIFY,
        CV,
        r"image_classification_mobilenetv2_.*",
        250.0,
        TOP1_CV,
    ),
    Described("pp-resnet50", "PP-ResNet50", CLASSIFY, CV, r"image_classification_ppresnet50_.*", 250.0, TOP1_CV),
    # Pictures: where is it?
    Described("faster-rcnn", "Faster R-CNN R-50-FPN", DETECT, ZOO, r"FasterRCNN-.*", 5000.0, ("Accuracy", "map", COCO)),
    Described(
        "mask-rcnn",
        "Mask R-CNN R-50-FPN",
        "Finds, names and cuts out the things in a picture.",
        ZOO,
        r"MaskRCNN-.*",
        5000.0,
        ("Accuracy", "map", f"{COCO}, boxes"),
    ),
    Described(
        "retinanet", "RetinaNet with ResNet-101", DETECT, ZOO, r"retinanet-.*", 5000.0, ("Accuracy", "map", COCO)
    ),
    Described("ssd-mobilenet-v1", "SSD-MobileNetV1", DETECT, ZOO, r"ssd_mobilenet_v1_.*", 1000.0, ("mAP", "map", COCO)),
    Described("ssd-resnet34", "SSD with ResNet-34", DETECT, ZOO, r"ssd-\d.*", 3000.0, ("Accuracy", "map", COCO)),
    Described("tiny-yolo-v2", "Tiny YOLOv2", DETECT, ZOO, r"tinyyolov2-.*", 1000.0),
    Described(
        "tiny-yolo-v3", "Tiny YOLOv3", DETECT, ZOO, r"tiny-yolov3-.*", 1000.0, ("Accuracy", "map", COCO_REPORTED)
    ),
    Described("yolo-v2", "YOLOv2", DETECT, ZOO, r"yolov2-coco-.*", 2000.0),
    Described("yolo-v3", "YOLOv3", DETECT, ZOO, r"yolov3-12.*", 3000.0, ("Accuracy", "map", COCO)),
    Described(
        "yolo-v3-opset10", "YOLOv3 of opset 10", DETECT, ZOO, r"yolov3-10.*", 3000.0, ("Accuracy", "map", COCO_REPORTED)
    ),
    Described("yolo-v4", "YOLOv4", DETECT, ZOO, r"yolov4.*", 3000.0, ("Accuracy", "map", COCO_REPORTED)),
    Described("nanodet", "NanoDet-Plus-m", DETECT, CV, r"object_detection_nanodet_.*", 500.0),
    Described("yolox-s", "YOLOX-S", DETECT, CV, r"object_detection_yolox_.*", 1000.0),
    Described(
        "deeplab-duc",
        "ResNet101-DUC",
        "Says of each pixel of a street scene what it belongs to.",
        ZOO,
        r"ResNet101-DUC-.*",
        10_000.0,
        ("mIOU (%)", "iou", "Cityscapes validation"),
    ),
    Described(
        "fcn-resnet50",
        "FCN with ResNet-50",
        "Says of each pixel what it belongs to.",
        ZOO,
        r"fcn-resnet50-.*",
        5000.0,
        ("Mean IoU", "iou", "COCO 2017 validation, the 20 classes of Pascal VOC"),
    ),
    Described(
        "fcn-resnet101",
        "FCN with ResNet-101",
        "Says of each pixel what it belongs to.",
        ZOO,
        r"fcn-resnet101-.*",
        5000.0,
        ("Mean IoU", "iou", "COCO 2017 validation, the 20 classes of Pascal VOC"),
    ),
    Described(
        "pp-humanseg",
        "PP-HumanSeg",
        "Says of each pixel whether it belongs to a person.",
        CV,
        r"human_segmentation_pphumanseg_.*",
        250.0,
        ("mIoU", "iou", "PP-HumanSeg's own test part"),
    ),
    Described(
        "efficient-sam-ti",
        "EfficientSAM-Ti",
        "Cuts out what is pointed at.",
        CV,
        r"image_segmentation_efficientsam_ti_2025april.*",
        5000.0,
    ),
    # Faces and people
    Described(
        "arcface-resnet100",
        "ArcFace with ResNet-100",
        "Turns a face into 512 numbers; equal faces lie close.",
        ZOO,
        r"arcfaceresnet100-.*",
        1000.0,
        ("LFW * accuracy (%)", "accuracy", "LFW"),
    ),
    Described(
        "emotion-ferplus",
        "FER+ emotions",
        "Says which of eight emotions a face shows.",
        ZOO,
        r"emotion-ferplus-.*",
        250.0,
    ),
    Described("ultraface-320", "UltraFace RFB-320", "Finds faces.", ZOO, r"version-RFB-320.*", 100.0),
    Described("ultraface-640", "UltraFace RFB-640", "Finds faces.", ZOO, r"version-RFB-640.*", 200.0),
    Described(
        "ultraface-slim-320",
        "UltraFace slim-320",
        "Finds faces.",
        "Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB",
        r"ultraface_slim-320.*",
        100.0,
    ),
    Described(
        "yunet",
        "YuNet",
        "Finds faces.",
        CV,
        r"face_detection_yunet_.*",
        100.0,
        ("Easy AP", "map", "WIDER Face validation, easy"),
    ),
    Described(
        "sface",
        "SFace",
        "Turns a face into 128 numbers; equal faces lie close.",
        CV,
        r"face_recognition_sface_.*",
        500.0,
        ("Accuracy", "accuracy", "LFW"),
    ),
    Described(
        "ediffiqa-tiny", "eDifFIQA tiny", "Says how good the picture of a face is.", CV, r"ediffiqa_tiny_.*", 500.0
    ),
    Described(
        "facial-expression",
        "MobileFaceNet for expressions",
        "Says which of seven expressions a face shows.",
        CV,
        r"facial_expression_recognition_mobilefacenet_.*",
        250.0,
    ),
    Described(
        "mp-handpose",
        "MediaPipe hand pose",
        "Finds the joints of a hand.",
        CV,
        r"handpose_estimation_mediapipe_.*",
        250.0,
    ),
    Described("mp-palm", "MediaPipe palms", "Finds palms.", CV, r"palm_detection_mediapipe_.*", 250.0),
    Described("mp-person", "MediaPipe persons", "Finds persons.", CV, r"person_detection_mediapipe_.*", 250.0),
    Described("mp-pose", "MediaPipe pose", "Finds the joints of a person.", CV, r"pose_estimation_mediapipe_.*", 250.0),
    Described(
        "person-reid",
        "Youtu person re-identification",
        "Turns a person into numbers; equal persons lie close.",
        CV,
        r"person_reid_youtu_.*",
        1000.0,
    ),
    # Pictures into pictures
    *(
        Described(f"style-{name}", f"Fast neural style: {name}", STYLE, ZOO, rf"{name}-\d.*", 2000.0)
        for name in ("candy", "mosaic", "pointilism", "rain-princess", "udnie")
    ),
    Described(
        "super-resolution",
        "Sub-pixel CNN",
        "Makes a grey picture of 224 by 224 pixels three times as large.",
        ZOO,
        r"super-resolution-10.*",
        1000.0,
    ),
    Described("nafnet", "NAFNet", "Takes the blur out of a picture.", CV, r"deblurring_nafnet_.*", 10_000.0),
    Described("dexined", "DexiNed", "Draws the edges of a picture.", CV, r"edge_detection_dexined_.*", 5000.0),
    Described("lama", "LaMa", "Fills holes of a picture.", CV, r"inpainting_lama_.*", 10_000.0),
    # Text in pictures
    Described(
        "crnn-en", "CRNN, English", "Reads a line of digits and letters.", CV, r"text_recognition_CRNN_EN_.*", 500.0
    ),
    Described(
        "crnn-ch",
        "CRNN, Latin and digits with signs",
        "Reads a line of text.",
        CV,
        r"text_recognition_CRNN_CH_.*",
        500.0,
    ),
    Described("crnn-cn", "CRNN, Chinese", "Reads a line of Chinese text.", CV, r"text_recognition_CRNN_CN_.*", 500.0),
    Described(
        "pp-ocr-v3-en",
        "PP-OCRv3 detection, English",
        "Finds lines of text.",
        CV,
        r"text_detection_en_ppocrv3_.*",
        500.0,
    ),
    Described(
        "pp-ocr-v3-cn",
        "PP-OCRv3 detection, Chinese",
        "Finds lines of text.",
        CV,
        r"text_detection_cn_ppocrv3_.*",
        500.0,
    ),
    Described(
        "license-plate", "LPD-YuNet", "Finds licence plates.", CV, r"license_plate_detection_lpd_yunet_.*", 250.0
    ),
    Described("vittrack", "VitTrack", "Follows a thing through a film.", CV, r"object_tracking_vittrack_.*", 250.0),
    # Text
    Described(
        "bert-squad",
        "BERT for SQuAD",
        "Finds the answer to a question in a text.",
        ZOO,
        r"bertsquad-1.*",
        2000.0,
        ("Accuracy", "accuracy", "SQuAD"),
    ),
    Described(
        "bidaf",
        "BiDAF",
        "Finds the answer to a question in a text.",
        ZOO,
        r"bidaf-.*",
        1000.0,
        ("Accuracy", "exact-match", "SQuAD v1.1"),
    ),
    Described("gpt2", "GPT-2", "Turns a text into hidden states.", ZOO, r"gpt2-10.*", 2000.0),
    Described(
        "gpt2-lm", "GPT-2 with its language head", "Says which token comes next.", ZOO, r"gpt2-lm-head-10.*", 2000.0
    ),
    Described("roberta-base", "RoBERTa base", "Turns a text into hidden states.", ZOO, r"roberta-base-.*", 2000.0),
    Described(
        "roberta-sentiment",
        "RoBERTa for sentiment",
        "Says whether a sentence speaks well of something.",
        ZOO,
        r"roberta-sequence-classification-.*",
        2000.0,
    ),
    Described("t5-encoder", "T5 base, encoder", "Turns a text into hidden states.", ZOO, r"t5-encoder-.*", 2000.0),
    Described("t5-decoder", "T5 base, decoder", "Says which token comes next.", ZOO, r"t5-decoder-.*", 2000.0),
    Described(
        "minilm-l6-hidden",
        "all-MiniLM-L6-v2, hidden states",
        "Turns token numbers into hidden states, to be averaged into a vector.",
        "Xyntopia/all-MiniLM-L6-v2",
        r"model.*",
        500.0,
    ),
    Described(
        "gte-small-hidden",
        "gte-small, hidden states",
        "Turns token numbers into hidden states, to be averaged into a vector.",
        "koxy-ai/gte-small",
        r"model.*",
        500.0,
    ),
    # Sound and files
    Described(
        "silero-vad", "Silero VAD", "Says whether somebody speaks.", "snakers4/silero-vad", r"silero_vad.*", 50.0
    ),
    Described(
        "dtln-1",
        "DTLN, first part",
        "Takes noise out of speech: the mask of the spectrum.",
        "breizhn/DTLN",
        r"dtln_model_1.*",
        20.0,
    ),
    Described(
        "magika", "Magika v3.3", "Says what kind of file some bytes are from.", "google/magika", r"magika_.*", 100.0
    ),
)
