#include <stdio.h>

int main(void)
{
    puts("hello from nothing");
    return 0;
}
