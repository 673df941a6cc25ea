"""For services of one's own: samples what a model did and sends it to segwatch, never in the service's way.

A folder that imports nothing of segwatch and, until the first record is sent, nothing but the standard library: a
service can take it as it is. Kafka needs kafka-python; numpy is used where masks come as arrays.

    Sampler   sampler.py    which inputs are taken, with a known probability
    Producer  producing.py  a bounded queue and the thread that empties it
    rle       masks.py      a mask as COCO's run lengths
    Message, Refused, Sender  sending.py, kafka_sender.py  where records go
"""

from monitor.producer.masks import rle
from monitor.producer.producing import Producer
from monitor.producer.sampler import Sampler
from monitor.producer.sending import Message, Refused

__all__ = ["Message", "Producer", "Refused", "Sampler", "rle"]
