# Debug information that no compiler writes: blocks nested 400 deep around a million more, without
# DW_AT_sibling, and inlined calls whose origins are themselves and each other.
    .text
    .globl main
    .type main, @function
main:
    .rept 64
    nop
    .endr
    xor %eax, %eax
    ret
.Lend:
    .size main, . - main

    .section .debug_abbrev
    .uleb128 1, 0x11            # 1: compile unit, with children
    .byte 1
    .uleb128 0x03, 0x08         # name, string
    .uleb128 0x11, 0x01         # low_pc, addr
    .uleb128 0x12, 0x07         # high_pc, data8
    .byte 0, 0
    .uleb128 2, 0x2e            # 2: subprogram, with children
    .byte 1
    .uleb128 0x03, 0x08
    .uleb128 0x11, 0x01
    .uleb128 0x12, 0x07
    .byte 0, 0
    .uleb128 3, 0x0b            # 3: lexical block, with children
    .byte 1, 0, 0
    .uleb128 4, 0x0b            # 4: lexical block, without
    .byte 0, 0, 0
    .uleb128 5, 0x1d            # 5: inlined call, without
    .byte 0
    .uleb128 0x31, 0x13         # abstract_origin, ref4
    .uleb128 0x11, 0x01
    .uleb128 0x12, 0x07
    .uleb128 0x59, 0x0b         # call_line, data1
    .byte 0, 0
    .byte 0

    .section .debug_info
.Lunit:
    .long .Lunit_end - .Lversion
.Lversion:
    .value 4
    .long .debug_abbrev
    .byte 8
    .uleb128 1
    .asciz "hostile.c"
    .quad main
    .quad .Lend - main
    .uleb128 2
    .asciz "function"
    .quad main
    .quad .Lend - main
.Lself:
    .uleb128 5
    .long .Lself - .Lunit
    .quad main + 8
    .quad 8
    .byte 1
.Lone:
    .uleb128 5
    .long .Lother - .Lunit
    .quad main + 16
    .quad 8
    .byte 2
.Lother:
    .uleb128 5
    .long .Lone - .Lunit
    .quad main + 24
    .quad 8
    .byte 3
    .rept 400
    .uleb128 3
    .endr
    .rept 1000000
    .uleb128 4
    .endr
    .rept 402
    .byte 0
    .endr
.Lunit_end:
    .section .note.GNU-stack, "", @progbits
