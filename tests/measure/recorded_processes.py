"""What ``memfit measure`` recorded of PyTorch's own CUDA build, without a GPU.

torch 2.11.0+cu130 and 2.15.0+cu132 ran the measured process as it is (real dispatch, autograd's
device thread, the caching allocator and its history) on a CUDA runtime that hands out addresses and
launches nothing, said to be of compute capability 8.6. So kernels' values mean nothing, and every
allocation that PyTorch itself makes is real; what cuDNN and the driver take is not in it.
"""

from __future__ import annotations

from typing import Any

from memfit.recipe.recipe import Recipe

#: By name: the recipe and its micro-batch.
RECIPES: dict[str, tuple[Recipe, int]] = {
    "adam": (Recipe(model="mlp", input_shape=(1, 8, 8), optimizer="adam"), 32),
    "accumulation": (
        Recipe(
            model="mlp",
            input_shape=(1, 8, 8),
            optimizer={"name": "sgd", "momentum": 0.9},
            accumulation=2,
            zero_grad="zero",
            clip_grad_norm=1.0,
            ema=True,
        ),
        32,
    ),
    "fused-amp": (
        Recipe(
            model="mlp",
            input_shape=(1, 8, 8),
            optimizer={"name": "adamw", "fused": True},
            precision="amp-fp16",
        ),
        32,
    ),
}

#: By name and version of torch: what the processes answered.
ANSWERS: dict[str, dict[str, dict[str, Any]]] = {
    "adam": {
        "2.11": {
            "peak_allocated_bytes": 18293248,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 18293248,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 38440,
                "optimizer": 76880,
                "batch": 8448,
                "activations": 1284,
                "temporaries": 38440,
                "workspaces": 18087936,
            },
            "sequence": (
                "eNqFU+2Om0AMfJf83j3h/QDSNzipbxBFaBs2TXTAXoH0U333jiHkYEkaJRvHs7bH9sCfTXj3retD"
                "220+7Tau981L0YfiEN5/vZT+6C5VvxEj7sqyrmOw9dUlxooqfC26cOxr9zO+a6oK111XHEP7w7Vl"
                "fB8a3xXV+c0/TPziDm/3Muest6CidL2LI9dTdBdA57p4bfrP5+4G96fWd6dQlQ9Jf/s23O+XB/Tu"
                "cCq6b21/u9yLTR3KS+WHdROCNQ6+iq9cVYWD68+h4eudVlmai2T67MXOkor9yaUBMEs3p60SegDU"
                "ACibLnxKdW6ERThdS+aWtmmeiHSGUWJym6VLbMg08AcGRhTSzBBCS0Bf2cZ48x/PTn1xKjtpDGRR"
                "50rk07C3zj+wYUE0A8zobqcWb1UouY4xbn3M+dj6mJTMInhsoms3dyDOegokzxDzxB+JLUNqxhMD"
                "yRIxkb94Tih6Tmj1nNBKf4r1p1h/Wij+yLMT31x/ivWnlf4Ua01LrWmtNa20pkhrWu+X4v3Sar8U"
                "7Zf2eLP9d9/0/FIn14VxIymGycEkM+4IkjI3srAIKySbFIYPcMSg060AlYSjCCbHgUJg0ULCSOQp"
                "LBS/2BuC8Ehuhca00ACsWmgjNGprFB2swQEKsTMhAQAfagFnIrDoXGi0iIOhDPRSwiCC+MCDbEhj"
                "g9Th4D4TJhcGWfhnUQae5JVAXzQJI5FktbDYAv4gyzI9WxSz3BR8zVmgAanESFJxc8AxlVTcEipj"
                "MKnV/u8/LemiqQ=="
            ),
        },
        "2.15": {
            "peak_allocated_bytes": 8702464,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 8702464,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 37928,
                "optimizer": 76880,
                "batch": 8448,
                "activations": 1288,
                "temporaries": 16384,
                "workspaces": 8519680,
            },
            "sequence": (
                "eNqFVFuOm0AQvIu/mxU9LyA3iJQbWBYiBmetxcwGcJ7K3VMN2IEBxzJo3NXVr+myf+/8e9UWvW+7"
                "3Yf9ruir5iXvfX707z9fyupUXOt+RyNelOXlEoJtVV9DLK/9l7zzp/5S/Ah9TV3D3XX5ybffi7YM"
                "/b6purw+v1UPAz8Xx7etyHnVOykvi74Imespuiug8yX/2PSfzt0d7l/bqnv1dfmw6K+q9dv9yoBV"
                "cXzNu69tf3ceaHfx5bWuhutmkDVePEpcRV37Y9GffSPuvVaJSym+fQ60t6xC+2byAJilmXKmSA+A"
                "GgBl3cJmp1NDFnSeUnJsUps4cnNsYBnYQzZBVBoPAE+VlmG8JOmp2pjD/Meyt74kVAwXAknQuaL0"
                "NqzlzIHlZthwQfyEZEZKdmv7npnjadxxE2OeeCPPv+2MieJZlFwZ89T1BiRRT4H4GWKe2GNhK5Ca"
                "1QmBeImYwF7oiQM98UpPvKEnXumJQz3xhp441BMvFPTIsre+5nriUE+80hNvSIVDPT0izfTEaz3x"
                "Sk+8oScO9MTrHXK4Q17tkIMd8gH/MtW3qunlDyaeFiDNOVxElKJ0lEjjMUWQjjwIQjDu0gLC4XDI"
                "CzwhBp9BzwhVI4V0DABXqnDABxy7MnBhfCSAFSGRwpQg4YeQkcadYKPoQ5M2pNErJIVmNOKHE9UE"
                "TUlnFCEJ7CGlnFJVEUY0KGzwDYXx1WAoUIwleRwZ5GGpDWJKBnlwWATLC7+FUhBpNcmDSGsJTyQ4"
                "yogPKW1CFk3ZjKx0gpzI5LAzJgdlIb9D6HAiAGgkHRspIVzpGSfGjjB3hMEjLRxwMXukzeHPX8eL"
                "y08="
            ),
        },
    },
    "accumulation": {
        "2.11": {
            "peak_allocated_bytes": 18304512,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 18304512,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 38440,
                "optimizer": 76880,
                "batch": 8448,
                "activations": 1288,
                "temporaries": 49664,
                "workspaces": 18087936,
            },
            "sequence": (
                "eNrtlsGO4zYMht8lZ3lgWrJs9w0K9NbeBgPDTTw7wTrxwHamLYq+ez/Kk0wk7wLd7alAkdASKfIX"
                "Sf2K8+dufO2nbhmneffD465b+vNDu4ztfnz94+HQP3eXYdmZ1b4fxnOfGrvD4XRKjVM/XFJbO4yf"
                "2nl8Xk7d7+naeRhYnuf2eZx+66ZDun44vj380p/ncbpayGRuh+Pn/qtQv3b7z1/Cus/j5tQeuqVL"
                "Pbd1zRdMx1P743n56TjfzMvL1M8v43D4+qYU1nf7l/Y8TqeHn/fd0N1KmReC0oDheO6GT+1bv+do"
                "1qht45OeTP3++DqNgG8quQyJ737oTq83tyezO42Hy9AHEghOFuFb6FI3DIAux/Gsy4+2qHxt8uvn"
                "yTyWUqT6VZVgcLG6IhRBL24IiZ5HBhertTSFsQFyNRSlj3TxtnamXAPWkFIaX+fG39kkd3VZ+dgW"
                "Ih0Wq4hqKQhzwUVig7tmF3Yqb5rbaD7Sqru44rYWYNVQp4YmqYpErr38KOvOGNon9xb3rsu1hA+k"
                "4r3M9VTeoz4O9j0s/96+/8f6GVpXJq0r/1HryrR15X3rxKNbI/Yu1+9Vr1guXi5j1cdqFat1rF5b"
                "cr2bNrmbNr2bNr6b9st3UxKOyIYjsuGIpByRlCMScUQijkjEEYk4IhFHJOWIpByRLUdkwxFJOCJb"
                "jsiWI5JyRP5v3b9p3f31kvjGfLN6f70kvl4SXy+Jr5fE10vi6xVOGHU9zuKJV2v/1p8XfauuP8/W"
                "qLun4TVN1BaJdoHEMp05zYF92Qv8TAdwAROTqeimBVNEs6McKiBrjw2lYnAsYcSxQQOEcMuXaAzs"
                "aMmC7RDrjCV3CFgZiydDJuqEsTEcmyNIhUXHlip4O4qANiUGcBx7Mw8De4PpKuNAY8gcaGEOVmNK"
                "iAAPOVfiVKEXoAQhNFjZQn04n8qURAZhCpCKzxl5nfM6hMNQ1RrvjAdBC6Q0zyIbIxDKN6bKTQW/"
                "ga3UAQhKrqypnKmIClIY/iFkQfCuTFWbCkdmGXzPmIeBTMCsxdSgMWQ1CescLKZwOtNEyKAuTQ0a"
                "UnPQxDSmyU2jR6BAhJEZPwSNNQ1RQcQ0BKuotzdNZRp2ZJY1JMM8DJoTrMhhTq6EYMJD+aAqgKpI"
                "riNkymFT7nVRDRqnrFofetjrWqkP9YaRgZIKvD5UU/D1oSwNToGuZK0115q2dkT7QxCnknktUY+U"
                "gYJZfPrrbws85Nk="
            ),
        },
        "2.15": {
            "peak_allocated_bytes": 8735744,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 8735744,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 38440,
                "optimizer": 76880,
                "batch": 8448,
                "activations": 1288,
                "temporaries": 49152,
                "workspaces": 8519680,
            },
            "sequence": (
                "eNrtVlFv4zYM/i95pgpTsmxr/2DA3ra3ojB8iXsNzrEL2+k2DPff7yMd5yI5xTrc04BDJVukyI8U"
                "9ZnNP7vhtR2beRin3S+Pu2Zu+4d6Hur98Pr3w6F9bs7dvKNFv++Gvk2VzeFwOqXKse3Oqa7uhs/1"
                "NDzPp+avdK/vOmxPU/08jH824yHdPxzfHv5o+2kYVw0ymeru+KV9F+pTs/9yD+s2j6tRfWjmJrXc"
                "nms6Q3U81b/282/H6aqeX8Z2ehm6w/tBcbC22b/U/TCeHn7fN11zPco0wyl16I59032u39o9rmbx"
                "2hY+qcnY7o+v4wDwzUnOXWK775rT69XsiXan4XDuWiUBw8hhYljZaroOoPNx6GX70dmyqChb/57o"
                "0bNN5VVkVeSxuCBYle0VIZGzSJHHYsXBklPIRWF9EclcuConvzgsmiyvfFlQcatTqxwaJ96isVWm"
                "CnvJNXbj2Chfs9NI/irlG6mIpPLGz173FFYUVaoIyamQyFrLynMoYFbcKrV8/K9m+cWI13N9h7eX"
                "eixXdYHK7kF9p8AFK/t5Qx+8If+RG/IfuiH/oRvytzek2I7YXVOP5fwHxBUrj7d9LBaxWMZiFYtr"
                "hdfm4ZLm4dLm4eLm4e43D06oyRtq8h1q8oaanFKT71CTU2pyRE2OqMkRNTmiJkfU5JSanFKTt9Tk"
                "e5zjDTXfNbulJm+pyVtq8j1qckpN/nlD/4Mbum0enDQPjvvBfxZvmwfHzYPj5sFx8+C4eXDcPPRw"
                "EBcW2Sf8smnf2n6WHzXLP0JHYl7g/ircidSRybCWy0gVNSeDRGQUEhNxjLyAD1BYy5Tg8JApWeJY"
                "8LJIH6PACqmWeEEPb9mTkwdyGRkHqgpKwMzIISVHBgJycTk5Dwt8CADB0pXkAODgGQj3kYOwCJlL"
                "BuICLuJAeMJLp6UcnjphXVIO7xyugTxCe3AartAbDxio5CU2COQdeSTqPWEYSAYfpBEVAmDpYYLa"
                "BipAHKBAMNAVYD9sdQJMdgoJBbucCpQaIDqxRFyd8JTNiopAZUYlPidLJRCkFChCiYEc8M1iGCzL"
                "kko4lTAPBOJWTBWCVXIYcamocgTiV/DSiS8QnjphjcuGdwXXQAHJBSYMA71BEzJQyUtsECg4Cjh0"
                "8IRhglwOYESFAFgGeEmuSDKAQ3pzoFEmuMIokCgTWmSgkk60iwxkygpRSnLijB9cGUiVyVsh9AHC"
                "gQZmeYijUHKhJpB0CpeEm5iGlbwswCzGutDY4gZ45S6YwsoWaIy0FbPoJbb8hgSf2coXAHhQla0g"
                "K7N1BzlZddSHhFgMJBF1ERiEEG4vD5Uks+WhSDDShZJd6q4ZCKQUCzwwIIIBE0wpzIQKK9Tq6es3"
                "oPJXLg=="
            ),
        },
    },
    "fused-amp": {
        "2.11": {
            "peak_allocated_bytes": 18274304,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 18274304,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 37928,
                "optimizer": 76904,
                "batch": 8448,
                "activations": 652,
                "temporaries": 16640,
                "workspaces": 18087936,
            },
            "sequence": (
                "eNp9Vctu2zAQ/Befl4FWpEiqf1Cgx96CQFBtuTEiW4Ek94n+e2cpyRGpOGgJe2af3OXEf3fda9PX"
                "Y9cPu0+Pu3psLg/V2FX77vX3w6E51td23NHE14fD+ZySfdNeU65qu+/V0B3Hc/0rtV3aFuZhqI5d"
                "/7PuD6n9eG3blDtf24evzWXo+oXpLs1QtaeX5m76b/X+5b38695uTtWhHutN1c1dhyuo07n6fBm/"
                "nIYbPT73zfDctYe7Rftmf3rtu33dvjPT5Gp/mr4bUrdAxhd+ot25O1zbJiyO4alx8D8XU922KDee"
                "uouYH3XurKds+fdEjwXnKV4gB8LE0HOZkw5EHoi8sBtciPOckK32JmJMVloyKyLkFA9eiIJL6zOy"
                "K44z4wtnIy4ESqbQkhTP5kq89JLNlSbCmglzgvXcPOd+CZgIE5C5g3Kg4g4STxshd0PiZdclhfAz"
                "IT2FNAkuZzxPC9VuO7mNa0WGu0du+YyXy4dVc6h0W/UavhVaxrvsMiTNVusOWSdiemJTnrcntsYe"
                "Afp2vQmxXg1Hr8YvqPjAFiNe7wZwiZyaCpS9TyVB0ndk3xDbgGwTkX0YYlJzgiO5cSI3TuTGG7lx"
                "KjdO5capjDiWEacy4kRGnMiIUxlxJJx7yEbI3dAiFU6lwolUOJEKb6TCG1VwogpOVcGxKnijCt6q"
                "glNV8EYVnKiCI1VwrAqO3jpHqrhnixFPo8bPQfOjuYzyS5DN2xYHi3F7zExGwnItJd9CGN4pniI7"
                "YjRfknKkPMzIhwrIAD2gRcCClBy4KTFZfGBrcJeD+BwrK0lnpBmc5EBjqASoNT7Qi4EBJVBYw4YM"
                "+FCIQQIgjRj5mosbXErCXpS8OyTEMXjBuA6sBmFASmBBBm/fkfFkSiqwavyJxvowPdy8IFkTksJJ"
                "IbTA1NEB4qW6FAQK7RnCs7F4pXiMmiyq4FiMDr9HjrBZW5LLyKEXKwflYVIyMszP5eQ0OUMOqcNB"
                "60LCBcehAzmSw5MryYsZ5ZHaIxugR0J89egFdoXKeHEemby0oskjE6CX/UhSsKjoPXl445TIiFMy"
                "4fGWyFLCA0gJlK8yatByfSvV5RLowMhw5FPGAh7jU5ifKsQXcRihwgyVDLGQ3ct286d//wGafGWQ"
            ),
        },
        "2.15": {
            "peak_allocated_bytes": 8685056,
            "peak_reserved_bytes": 23068672,
            "recorded_allocated_bytes": 8685056,
            "replayed_reserved_bytes": 23068672,
            "parts": {
                "parameters": 38440,
                "gradients": 5160,
                "optimizer": 76904,
                "batch": 8448,
                "activations": 4748,
                "temporaries": 24576,
                "workspaces": 8519680,
            },
            "sequence": (
                "eNqNVduOmzAQ/Zc8j1cMNrbpH1TqY99WK0QTthuVhBWQXtV/7xkDWWySVVXc5RzPjZk5yp9d99r0"
                "9dj1w+7D464em/NDNXbVvnv99XBonutLO+5o4uvD4XRKyb5pLylXtd3Xauiex1P9M707ty2uh6F6"
                "7vofdX9I758vbZtyp0v78Lk5D12/MN25Gar2+K25G/5Lvf92K/66tqtRdajHepN1863DBdTxVH08"
                "j5+Ow5UeX/pmeOnaw92kfbM/vvbdvm5v9DT5tN9N3w2pWSDjD36i3ak7XNomDI5hqXHw5HJVty3S"
                "jcfuLNePOnfWU7b8e6LHgvMUL5ADYWLoucxJByIPRF7YDS7EeA7IVnsTMSYrLZkVEWKKBS8+mfGF"
                "s2RXXDASr5BeEmVzVF7yZnPUibBmwjzjOGhso+fiOfdLkIkwAZk7KAcq7iCxtBFyVyRWdp1SCD8T"
                "UlMIk+ByxnO3kO06k4JLiyh2TYZ+/IfZbLR0JMyfQ/rr/NfwLfsyh2XAIWh2K1O2WoyQaiKmZZyC"
                "vy3jGns46GsjJsR61Ua9GpSg4p27GPF6ioCL51RUoOx9KnGSuqP7DbF1yDYe2bsuJr1OcCRMToTJ"
                "iTB5I0xOhcmpMPmGMDkVJsfC5FSYnAiTbwiTE2FyKkyOpHgP2Qi5K1rEx6n4OBEfJ+Ljjfj4lqp4"
                "I777ZivxcSo+jsXHG/HxVnx8S3ycio834uNEfByJj2PxcSQpjsR37y5GPE0Kv0/N9+Y8yk9TNi+Q"
                "GFhMy6PlqF5Jbxh/MvlmDq6QhMLay+OI8RElKU/KgUV5yIRIkB/ekQa2cmCm5MriDxoDWznwzzF5"
                "+OuM5EEmjSpyXMMBubQGgzU0+KNJSzRYS/shLkTQnvAoIFWSlkCOMDQlr0ivUIXBYiIgjkEwHION"
                "LMjAxSACkBIIP0+mpAI7gd8RzBkdRTcKktE5KjABBIWRgivWy6JY1CNhkNBI6VIl2of91mQNWbzj"
                "2jrCo/CKiduSXEYO1i4neTQ5Q04CwRt+ysoHyikIonSOnCcHHA5sQGK7FI5HFDmI4SEh+GIX5UE0"
                "DyvkBq+QzyM/WI/i8eplYJIJQ86oRASsNR4FpFB0iTuwJZLJq5PhOipxIW22VCIaTgl3WRLZkkyC"
                "wC4QYV9y+U/iAVmpAkXJZ6PFCj1WhbQPPNqs0GeFRit0WqHVCr1W0mx0WWGbVJ4//f0HhNaQUQ=="
            ),
        },
    },
}
