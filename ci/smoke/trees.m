/* Trees of objects of a class, which the runtime describes to the collector. */
#include <objc/Object.h>
#include <objc/runtime.h>
#include <stdio.h>
@interface Node : Object {
@public
  Node *left, *right;
}
+ (Node *)make:(int)depth;
- (int)count;
@end
@implementation Node
+ (Node *)make:(int)depth {
  Node *node = class_createInstance(self, 0);
  if (depth > 0) {
    node->left = [Node make:depth - 1];
    node->right = [Node make:depth - 1];
  }
  return node;
}
- (int)count {
  return 1 + (left ? [left count] : 0) + (right ? [right count] : 0);
}
@end
int main(void) {
  int sum = 0;
  for (int i = 0; i < 50; i++) sum += [[Node make:12] count];
  printf("%d\n", sum);
  return 0;
}
